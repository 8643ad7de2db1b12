"""What a provider said against a sender is noted, whatever it means for the mail."""

from __future__ import annotations

import pytest

from relaygw.delivery.learning import SenderNotes
from relaygw.mail.outcome import AttemptReport, Meaning, RecipientOutcome, Scope, Stage, Verdict
from relaygw.mail.reply import SmtpReply


@pytest.mark.parametrize(
    ("stage", "code", "verdict", "scope", "is_noted"),
    [
        (Stage.MAIL, 550, Verdict.RETRY, Scope.MESSAGE, True),
        (Stage.RCPT, 553, Verdict.HOLD, Scope.SENDER_DOMAIN, True),
        (Stage.MAIL, 450, Verdict.RETRY, Scope.MESSAGE, False),
        (Stage.MAIL, 503, Verdict.RETRY, Scope.MESSAGE, False),
        (Stage.MAIL, 552, Verdict.BOUNCE, Scope.MESSAGE, False),
        (Stage.RCPT, 550, Verdict.BOUNCE, Scope.RECIPIENT, False),
        (Stage.RCPT, 550, Verdict.RETRY, Scope.RECIPIENT, False),
    ],
)
def test_a_refused_sender_is_noted(
    stage: Stage, code: int, verdict: Verdict, scope: Scope, is_noted: bool
) -> None:
    outcome = RecipientOutcome(
        rcpt_no=0,
        meaning=Meaning(verdict=verdict, scope=scope),
        stage=stage,
        reply=SmtpReply(code, ("no",)),
    )
    notes = SenderNotes()
    notes.add("p", "a@shop.test", AttemptReport(provider="p", relay="none", outcomes=(outcome,)))
    assert [note.reply for note in notes.take_unwritten()] == ([f"{code} no"] if is_noted else [])
