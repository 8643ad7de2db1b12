"""Outcomes of the parts of one attempt."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from relaygw.delivery.attempt import Attempt
from relaygw.delivery.outcome import Outcomes, _what_is_new
from relaygw.mail.outcome import Stage, Verdict
from relaygw.mail.reply import SmtpReply
from relaygw.settings.model import Settings
from relaygw.settings.provider import Provider
from relaygw.upstream.classifier import Classifier
from relaygw.upstream.outgoing import RecipientReply
from tests.builders import NOW_MS, claimed, update_of

HOUR_MS = 3_600_000


@pytest.mark.parametrize(
    ("due_at_ms", "recorded_ms"),
    [
        (NOW_MS, NOW_MS + 1),  # the store tells the outcomes of parts apart by it
        (NOW_MS + HOUR_MS, NOW_MS + HOUR_MS),
        (NOW_MS - HOUR_MS, NOW_MS - HOUR_MS),  # nothing waits for an hour
    ],
    ids=["at-once", "later", "clock-set-back"],
)
def test_a_part_is_due_when_it_says_whatever_the_part_before_said(
    due_at_ms: int, recorded_ms: int
) -> None:
    attempt = Attempt(claimed("a@y.test", "b@y.test"), "p")
    attempt.due_at_ms = NOW_MS
    update = update_of(attempt.claimed.queue_id, due_at_ms=due_at_ms)
    assert _what_is_new(attempt, update).due_at_ms == recorded_ms


TAKEN = RecipientReply(stage=Stage.CONTENT, reply=SmtpReply(250, ("2.0.0 Ok",)))
REFUSED = RecipientReply(stage=Stage.RCPT, reply=SmtpReply(550, ("5.1.1 no",)))
LOST = RecipientReply(stage=Stage.CONTENT, detail="connection lost", in_doubt=True)
MAY_BE_TWICE = "connection lost; the message may be sent more than once"


@pytest.mark.parametrize(
    ("replies", "details", "taken_parts"),
    [
        ((TAKEN, REFUSED), ["", ""], 1),
        ((REFUSED, REFUSED), ["", ""], 0),
        ((LOST, LOST), [MAY_BE_TWICE, MAY_BE_TWICE], 1),
    ],
    ids=["taken", "refused", "in-doubt"],
)
def test_of_doubt_alone_is_said_that_mail_may_be_sent_twice(
    replies: tuple[RecipientReply, ...], details: list[str], taken_parts: int
) -> None:
    attempt = Attempt(claimed("a@y.test", "b@y.test"), "p")
    attempt.by_address = {"a@y.test": [0], "b@y.test": [1]}
    attempt.part = ("a@y.test", "b@y.test")
    attempt.end_part(replies, Classifier(Provider(host="smtp.test")))
    assert [one.detail for one in attempt.outcomes] == details
    assert (attempt.taken_parts, attempt.part) == (taken_parts, ())


@pytest.mark.parametrize("is_dot_sent", [False, True])
def test_a_part_that_was_cut_short_is_in_doubt_once_its_dot_may_have_left(
    is_dot_sent: bool,
) -> None:
    attempt = Attempt(claimed("a@y.test"), "p")
    attempt.by_address, attempt.part = {"a@y.test": [0]}, ("a@y.test",)
    attempt.transaction.is_dot_sent = is_dot_sent
    attempt.cut_short(Classifier(Provider(host="smtp.test")))
    verdicts = [one.verdict for one in attempt.outcomes]
    assert verdicts == ([Verdict.DOUBT] if is_dot_sent else [])
    assert attempt.taken == is_dot_sent


@pytest.mark.parametrize("is_part", [True, False], ids=["part", "end"])
def test_no_outcome_is_due_when_its_mail_was_as_the_queue_knows_it_by_another_time(
    is_part: bool,
) -> None:
    """A clock that is set back by the age of a mail makes them the same."""
    mail = claimed("a@y.test", "b@y.test")
    told: list[Any] = []
    recorder: Any = SimpleNamespace(record=lambda update, *_: told.append(update))
    context: Any = SimpleNamespace(settings=Settings.model_validate({"mode": "sandbox"}))
    outcomes = Outcomes(context, cast(Any, None), recorder, cast(Any, None))
    attempt = Attempt(mail, "p", due_at_ms=mail.due_at_ms)
    attempt.by_address = {"a@y.test": [0], "b@y.test": [1]}
    attempt.part = ("a@y.test",)
    attempt.end_part((TAKEN,), Classifier(Provider(host="smtp.test")))
    if is_part:
        outcomes.record_part(attempt, attempt.report(), mail.due_at_ms)
    else:
        update = update_of(mail.queue_id, due_at_ms=mail.due_at_ms)
        outcomes.record(attempt, update, attempt.report(), mail.due_at_ms)
    (update,) = told
    assert update.due_at_ms == mail.due_at_ms + 1
