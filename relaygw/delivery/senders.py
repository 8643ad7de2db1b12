"""Which sender addresses were seen, and what each provider said of them.

Written now and then: what is new at once, what is known once in five minutes.
"""

from __future__ import annotations

import time
from dataclasses import replace

from relaygw.mail.outcome import AttemptReport, RecipientOutcome, Scope, Stage, Verdict
from relaygw.store.protocol import SenderNote

_MOST = 10_000
_AGAIN_AFTER_MS = 300_000
_LOST_STEP = 503  # says nothing of the sender


class SenderLedger:
    """The notes of one worker."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], tuple[int, str | None]] = {}  # when noted, refusal
        self._unwritten: dict[tuple[str, str], SenderNote] = {}

    def note(self, provider: str, sender: str, report: AttemptReport) -> None:
        """Learn from an attempt whether the provider takes mail of this sender."""
        refusal = _refusal(report)
        if refusal is None and not any(o.verdict is Verdict.DELIVERED for o in report.outcomes):
            return
        key = (provider, sender)
        now_ms = time.time_ns() // 1_000_000
        noted_at_ms, last = self._last.get(key, (0, None))
        if now_ms - noted_at_ms < _AGAIN_AFTER_MS and last == refusal:
            return
        if key not in self._last and len(self._last) >= _MOST:
            return
        self._last[key] = (now_ms, refusal)
        note = self._unwritten.get(key, SenderNote(provider=provider, sender=sender))
        if refusal is None:
            note = replace(note, accepted_at_ms=now_ms)
        else:
            note = replace(note, refused_at_ms=now_ms, reply=refusal)
        self._unwritten[key] = note

    def take_unwritten(self) -> list[SenderNote]:
        """Return what the store does not know yet; it has to be written or put back."""
        notes, self._unwritten = list(self._unwritten.values()), {}
        return notes

    def put_back(self, notes: list[SenderNote]) -> None:
        """Keep what could not be written."""
        for note in notes:
            self._unwritten.setdefault((note.provider, note.sender), note)


def _refusal(report: AttemptReport) -> str | None:
    """Return what was said against the sender: of its domain, or to MAIL FROM for good."""
    for outcome in report.outcomes:
        is_of_sender = outcome.scope is Scope.SENDER_DOMAIN
        if (is_of_sender or _is_refused_at_mail(outcome)) and outcome.reply is not None:
            return str(outcome.reply)
    return None


def _is_refused_at_mail(outcome: RecipientOutcome) -> bool:
    """True for a 5xx to MAIL FROM that is not about the message: that one bounces."""
    is_at_mail = outcome.stage is Stage.MAIL and outcome.verdict is Verdict.RETRY
    reply = outcome.reply
    return is_at_mail and reply is not None and reply.is_permanent and reply.code != _LOST_STEP
