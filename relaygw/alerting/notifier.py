"""What people are told, the channels of a configuration, and what they were not told yet.

Each channel is told on its own, so that none waits for another. One that fails is asked again after
a while, ever longer; what was over for an hour by then is no longer reported.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from relaygw.errors import PackageMissing, RelaygwError, StoreUnavailable
from relaygw.mail.clock import DAY_MS, clock_ms, rfc3339, rfc3339_or_none, utc_text
from relaygw.mail.words import fields, two_units
from relaygw.settings.alerts import Alert, Rule, channel_name, shown_command
from relaygw.settings.model import Settings
from relaygw.settings.section import Mode
from relaygw.store.store import Store
from relaygw.store.watch import Incident

NOT_INSTALLED = str(PackageMissing("apprise"))
_FORM = "%d %b %Y %H:%M:%S"
_OF_THE_QUEUE = frozenset(
    {Rule.QUEUE_AGE, Rule.QUEUE_GROWTH, Rule.IN_DOUBT, Rule.NO_DELIVERY}
    | {Rule.HELD, Rule.ROUTE_GONE, Rule.STUCK}
)
"""Rules of which the page of the queue shows more; of the others the first page does."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell: trouble that lasts, or its end."""

    incident: Incident
    host: str
    link: str | None = None

    @property
    def is_over(self) -> bool:
        """True when the trouble has ended."""
        return self.incident.recovered_at_ms is not None

    @property
    def title(self) -> str:
        """What it is about, in one line."""
        return f"[relaygw {self.host}] {'over: ' if self.is_over else ''}{self.incident.summary}"

    @property
    def text(self) -> str:
        """All of it, in some lines."""
        one, since = self.incident, utc_text(self.incident.since_ms, _FORM)
        if one.recovered_at_ms is None:
            lines = [self.title, f"What to do: {one.remedy}", f"Since {since}"]
        else:
            lasted = two_units(one.recovered_at_ms - one.since_ms)
            lines = [self.title, f"It lasted {lasted}, since {since}"]
        return "\n".join([*lines, self.link] if self.link else lines)

    def as_json(self) -> dict[str, str | None]:
        """Return the fields as programs get them; times as RFC 3339 writes them."""
        about = {"host": self.host, "link": self.link, "text": self.text}
        return {**incident_object(self.incident), **about}


def incident_object(incident: Incident) -> dict[str, str | None]:
    """Return an incident as programs get it: those that are told, and `--json`."""
    ended_ms = incident.recovered_at_ms
    return {
        **fields(incident, "rule", "key"),
        "state": "open" if ended_ms is None else "recovered",
        **fields(incident, "summary", "remedy"),
        "since": rfc3339(incident.since_ms),
        "recovered_at": rfc3339_or_none(ended_ms),
    }


class NotSent(RelaygwError):
    """A notice did not reach its receiver; the text says why, and holds no secret."""


class Channel(Protocol):
    """One receiver of notices."""

    async def send(self, notice: Notice) -> str:
        """Return once the receiver has taken a notice, with words on who that was.

        Raises NotSent, after some seconds at most.
        """


def notice_of(incident: Incident, settings: Settings) -> Notice:
    """Return the text about an incident, or about its end."""
    base = settings.web.url
    page = "/queue" if incident.rule in _OF_THE_QUEUE else "/"
    return Notice(incident, host=settings.hostname, link=f"{base}{page}" if base else None)


# --- channels and what they took --------------------------------------------------------------

RETRY_LADDER_S = (10.0, 30.0, 60.0, 300.0)
_WEEK_MS = 7 * DAY_MS
_WEEKLY = frozenset({Rule.LOGIN_ENDS.value})
"""Rules that are not over for months: their notice is sent again each week."""
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
        self._done = {one for one in self._done if one.incident_id in known}
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
        tasks = [one.sending for one in self.receivers if one.sending is not None]
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
            if receiver.rules and incident.rule not in receiver.rules:
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


# --- channels --------------------------------------------------------------------------------


def open_notifier(settings: Settings, store: Store, note: Callable[[str], None]) -> Notifier:
    """Return the notifier of the configured channels; the log says who cannot be told, and why."""
    receivers = []
    for number, alert in enumerate(settings.alerts):
        name = channel_name(alert, number)
        problem = problem_of(alert, settings)
        if problem is not None:
            note(f"warning: alerts are not sent to {name}: {problem}")
            continue
        channel = open_channel(alert, settings, in_trouble=partial(providers_in_trouble, store))
        receivers.append(Receiver(name, channel, frozenset(rule.value for rule in alert.on)))
    return Notifier(settings, receivers, store, note)


def providers_in_trouble(store: Store) -> Collection[str]:
    """Return the providers that are down or held, none when nobody knows."""
    try:
        return {hold.provider for hold in store.holds.in_force()}
    except StoreUnavailable:
        return frozenset()


def problem_of(alert: Alert, settings: Settings) -> str | None:
    """Return why a channel can tell nobody as things are, None if it may."""
    if alert.email is not None and settings.mode is Mode.SANDBOX:
        return "mode sandbox sends no mail"
    if alert.apprise is not None:
        return None if importlib.util.find_spec("apprise") else NOT_INSTALLED
    return None


def open_channel(
    alert: Alert, settings: Settings, *, in_trouble: Callable[[], Collection[str]]
) -> Channel:
    """Return the channel of one entry of `alerts`."""
    if alert.email is not None and alert.sender is not None:
        from relaygw.alerting.channels import Email

        return Email(alert.email, alert.sender, alert.providers, settings, in_trouble)
    from relaygw.alerting.channels import Apprise, Command, Webhook

    if alert.webhook is not None:
        return Webhook(alert.webhook, alert.shape)
    if alert.command is not None:
        return Command(alert.command)
    assert alert.apprise is not None
    return Apprise(alert.apprise)


def target_words(alert: Alert) -> str:
    """Return where a channel leads, without what is secret."""
    if alert.command is not None:
        return f"command {' '.join(shown_command(alert.command))}"
    return f"{alert.kind} {getattr(alert, alert.kind)}"
