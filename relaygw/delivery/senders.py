"""Which sender addresses were seen, and what each provider said of them.

Kept in memory and written now and then: what is new at once, what is known once an hour.
"""

from __future__ import annotations

import time
from dataclasses import replace

from relaygw.mail.outcome import AttemptReport, Scope, Stage, Verdict
from relaygw.store.protocol import SenderNote

_MOST = 10_000
_AGAIN_AFTER_MS = 3_600_000


class SenderLedger:
    """The notes of one worker."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], SenderNote] = {}
        self._unwritten: dict[tuple[str, str], SenderNote] = {}

    def note(self, provider: str, sender: str, report: AttemptReport) -> None:
        """Learn from an attempt whether the provider takes mail of this sender."""
        key = (provider, sender)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _MOST:
                return
            known = SenderNote(provider=provider, sender=sender)
        refusal = _refusal(report)
        now_ms = time.time_ns() // 1_000_000
        if refusal is not None:
            if known.reply == refusal and not _is_old(known.refused_at_ms, now_ms):
                return
            known = replace(known, refused_at_ms=now_ms, reply=refusal)
        elif any(outcome.verdict is Verdict.DELIVERED for outcome in report.outcomes):
            if not _is_old(known.accepted_at_ms, now_ms) and known.reply is None:
                return
            known = replace(known, accepted_at_ms=now_ms, reply=None)
        else:
            return
        self._known[key] = self._unwritten[key] = known

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
        is_refused = outcome.stage is Stage.MAIL and outcome.verdict is Verdict.BOUNCE
        if (is_of_sender or is_refused) and outcome.reply is not None:
            return str(outcome.reply)
    return None


def _is_old(at_ms: int | None, now_ms: int) -> bool:
    return at_ms is None or now_ms - at_ms >= _AGAIN_AFTER_MS
