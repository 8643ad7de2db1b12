"""Who was told of incidents, and who was not yet.

Each channel is told on its own, so that none waits for another. One that fails is asked again after
a while, ever longer; what was over for an hour by then is no longer reported.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from relaygw.alerting.notice import Channel, NotSent, notice_of
from relaygw.errors import StoreUnavailable
from relaygw.mail.clock import DAY_MS, clock_ms
from relaygw.settings.alerts import Rule
from relaygw.settings.model import Settings
from relaygw.store.store import Store
from relaygw.store.watch import Incident

RETRY_LADDER_S = (10.0, 30.0, 60.0, 300.0)
_WEEK_MS = 7 * DAY_MS
_WEEKLY = frozenset({Rule.LOGIN_ENDS.value})
"""Rules that are not over for months: their notice is sent again each week."""
_MOMENTS = frozenset({Rule.CONFIG_CHANGED.value})
"""Rules of what is over as it is told: no news for a channel that comes later."""
_JUST_MS = 60_000  # before the gateway started: it may have started for that
_ENDS_AS_TOLD = frozenset({Rule.GUARD_LEARNING.value})
"""Rules whose notice names its end: nobody is told of it again."""
FORGET_MS = 3_600_000
"""The end of an incident is no longer reported when it is so long ago."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """A channel took the notice of an incident, or of its end."""

    incident_id: str
    channel: str
    is_recovery: bool


@dataclass(slots=True)
class Receiver:
    """A channel with its name and rules, and how it does."""

    name: str
    channel: Channel
    rules: frozenset[str]  # empty: all
    failures: int = 0
    again_at_s: float = 0.0  # time.monotonic
    sending: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Notifier:
    """All channels of a gateway; `note` writes a line of the log."""

    settings: Settings
    receivers: Sequence[Receiver]
    store: Store
    note: Callable[[str], None]
    retry_ladder_s: Sequence[float] = RETRY_LADDER_S
    unwritten: set[Receipt] = field(default_factory=set)  # taken, and not in the store yet
    _done: set[Receipt] = field(default_factory=set)
    _started_ms: int = field(default_factory=clock_ms)

    def notify(self, incidents: Sequence[Incident], *, now_ms: int) -> None:
        """Begin to tell what is to be told; returns at once."""
        known = {incident.incident_id for incident in incidents}
        self._done = {receipt for receipt in self._done if receipt.incident_id in known}
        for receiver in self.receivers:
            is_busy = receiver.sending is not None and not receiver.sending.done()
            if is_busy or time.monotonic() < receiver.again_at_s:
                continue
            due = list(self._due(receiver, incidents, now_ms))
            if due:
                receiver.sending = asyncio.create_task(self._send(receiver, due))

    def write(self) -> None:
        """Write what channels took and the store does not know yet; blocks, raises nothing."""
        for receipt in tuple(self.unwritten):
            try:
                self.store.watch.note_told(
                    receipt.incident_id, receipt.channel, is_recovery=receipt.is_recovery
                )
            except StoreUnavailable:
                return  # the next look tries again
            self.unwritten.discard(receipt)

    async def drain(self, patience_s: float) -> None:
        """Let what is being told end, for a moment; stop the rest."""
        tasks = [receiver.sending for receiver in self.receivers if receiver.sending is not None]
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=patience_s)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    def _due(
        self, receiver: Receiver, incidents: Iterable[Incident], now_ms: int
    ) -> Iterator[tuple[Incident, Receipt]]:
        took = self._done | self.unwritten
        for incident in incidents:
            is_past = incident.rule in _MOMENTS and incident.since_ms < self._started_ms - _JUST_MS
            if is_past or (receiver.rules and incident.rule not in receiver.rules):
                continue
            again = receiver.name
            weeks = (now_ms - incident.since_ms) // _WEEK_MS
            if incident.rule in _WEEKLY and incident.recovered_at_ms is None and weeks > 0:
                again += f", week {weeks}"
            begin = Receipt(incident.incident_id, again, False)
            end = Receipt(incident.incident_id, receiver.name, True)
            knows_begin = again in incident.told or begin in took
            knows_end = receiver.name in incident.recovery_told or end in took
            if incident.recovered_at_ms is None:
                if not knows_begin:
                    yield incident, begin
            elif not knows_end and self._is_fresh(incident, knows_begin, now_ms):
                yield incident, end

    def _is_fresh(self, incident: Incident, knows_begin: bool, now_ms: int) -> bool:
        """True while the end is worth telling; of what a channel never heard, if it is news."""
        ended_ms = incident.recovered_at_ms or 0
        if incident.rule in _ENDS_AS_TOLD:
            return False
        return now_ms - ended_ms < FORGET_MS and (knows_begin or ended_ms >= self._started_ms)

    async def _send(self, receiver: Receiver, due: Sequence[tuple[Incident, Receipt]]) -> None:
        for incident, receipt in due:
            notice = notice_of(incident, self.settings)
            try:
                words = await receiver.channel.send(notice)
            except Exception as error:  # a defect of one channel stops neither mail nor others
                why = str(error) if isinstance(error, NotSent) else type(error).__name__
                self._put_off(receiver, notice.title, why)
                return
            receiver.failures = 0
            self._done.add(receipt)
            self.unwritten.add(receipt)
            await asyncio.to_thread(self.write)
            self.note(f"alert sent to {receiver.name} ({words}): {notice.title}")

    def _put_off(self, receiver: Receiver, title: str, why: str) -> None:
        ladder_s = self.retry_ladder_s
        wait_s = ladder_s[min(receiver.failures, len(ladder_s) - 1)]
        receiver.failures += 1
        receiver.again_at_s = time.monotonic() + wait_s
        self.note(
            f"warning: alert not sent to {receiver.name}: {why}; tried again in {wait_s:g} s: "
            f"{title}"
        )
