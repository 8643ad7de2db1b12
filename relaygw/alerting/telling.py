"""Tells channels what they were not told yet; each on its own, so that none waits for another.

A channel has one notice under way. One that fails is asked again after a while, ever longer;
what was over for an hour by then is not told any more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from relaygw.alerting.channels.channel import Channel, NotTold
from relaygw.alerting.notices import notice_of
from relaygw.errors import StoreUnavailable
from relaygw.settings.model import Settings
from relaygw.store.watch import Incident

RETRY_LADDER_S = (10.0, 30.0, 60.0, 300.0)
FORGET_MS = 3_600_000
"""The end of an incident is not told any more when it is so long ago."""


@dataclass(frozen=True, slots=True)
class Told:
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
class Teller:
    """All channels of a gateway.

    `keep` writes to the store that a channel took a notice, it blocks and raises
    StoreUnavailable; `note` writes a line of the log.
    """

    settings: Settings
    receivers: Sequence[Receiver]
    keep: Callable[[Told], None]
    note: Callable[[str], None]
    retry_ladder_s: Sequence[float] = RETRY_LADDER_S
    unwritten: set[Told] = field(default_factory=set)  # taken, and not in the store yet
    _done: set[Told] = field(default_factory=set)
    _started_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)

    def tell(self, incidents: Sequence[Incident], *, now_ms: int) -> None:
        """Begin to tell what is to be told; returns at once."""
        self._forget_but(incidents)
        for receiver in self.receivers:
            is_busy = receiver.sending is not None and not receiver.sending.done()
            if is_busy or time.monotonic() < receiver.again_at_s:
                continue
            due = list(self._due(receiver, incidents, now_ms))
            if due:
                receiver.sending = asyncio.create_task(self._send(receiver, due))

    def write(self) -> None:
        """Write what channels took and the store does not know yet; blocks, raises nothing."""
        for told in tuple(self.unwritten):
            try:
                self.keep(told)
            except StoreUnavailable:
                return  # the next look tries again
            self.unwritten.discard(told)

    async def drain(self, patience_s: float) -> None:
        """Let what is being told end, for a moment; stop the rest."""
        tasks = [one.sending for one in self.receivers if one.sending is not None]
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=patience_s)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    def _due(
        self, receiver: Receiver, incidents: Iterable[Incident], now_ms: int
    ) -> Iterator[tuple[Incident, Told]]:
        for incident in incidents:
            if receiver.rules and incident.rule not in receiver.rules:
                continue
            begin = Told(incident.incident_id, receiver.name, False)
            end = Told(incident.incident_id, receiver.name, True)
            took = self._done | self.unwritten
            knows_begin = receiver.name in incident.told or begin in took
            knows_end = receiver.name in incident.recovery_told or end in took
            if incident.recovered_at_ms is None:
                if not knows_begin:
                    yield incident, begin
            elif not knows_end and self._is_fresh(incident, knows_begin, now_ms):
                yield incident, end

    def _is_fresh(self, incident: Incident, knows_begin: bool, now_ms: int) -> bool:
        """True while the end is worth telling; of what a channel never heard, if it is news."""
        ended_ms = incident.recovered_at_ms or 0
        return now_ms - ended_ms < FORGET_MS and (knows_begin or ended_ms >= self._started_ms)

    async def _send(self, receiver: Receiver, due: Sequence[tuple[Incident, Told]]) -> None:
        for incident, told in due:
            notice = notice_of(incident, self.settings)
            try:
                words = await receiver.channel.tell(notice)
            except NotTold as error:
                self._put_off(receiver, notice.title, str(error))
                return
            except Exception as error:  # a defect of one channel stops neither mail nor others
                self._put_off(receiver, notice.title, f"{type(error).__name__}")
                return
            receiver.failures = 0
            self._done.add(told)
            self.unwritten.add(told)
            await asyncio.to_thread(self.write)
            self.note(f"alert told to {receiver.name} ({words}): {notice.title}")

    def _put_off(self, receiver: Receiver, title: str, why: str) -> None:
        ladder_s = self.retry_ladder_s
        wait_s = ladder_s[min(receiver.failures, len(ladder_s) - 1)]
        receiver.failures += 1
        receiver.again_at_s = time.monotonic() + wait_s
        self.note(
            f"warning: alert not told to {receiver.name}: {why}; tried again in {wait_s:g} s: "
            f"{title}"
        )

    def _forget_but(self, incidents: Sequence[Incident]) -> None:
        known = {incident.incident_id for incident in incidents}
        self._done = {one for one in self._done if one.incident_id in known}


def receivers_of(
    channels: Mapping[str, Channel], rules: Mapping[str, frozenset[str]]
) -> list[Receiver]:
    """Return what a Teller needs of channels by their names."""
    return [
        Receiver(name=name, channel=channel, rules=rules.get(name, frozenset()))
        for name, channel in channels.items()
    ]
