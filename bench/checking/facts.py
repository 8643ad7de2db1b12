"""The events of a history as facts. Reads them all; judges nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from bench.history import FAIL, INFO, INVOKE, OK, Event

Key = tuple[str, str]
"""A message and one of its recipients."""


@dataclass(slots=True)
class Sent:
    """What clients know of one message, by recipient; nothing later takes back a 250."""

    begun: dict[str, int] = field(default_factory=dict)  # when content first was
    acknowledged: dict[str, int] = field(default_factory=dict)  # when its first 250 came
    digests: set[str | None] = field(default_factory=set)
    gateway: str = ""  # that took it
    end: str = ""  # of the last attempt: ok | fail | info

    @property
    def recipients(self) -> tuple[str, ...]:
        """All whom somebody meant by it."""
        return tuple(dict.fromkeys((*self.begun, *self.acknowledged))) or ("",)

    @property
    def acknowledged_ns(self) -> int | None:
        """When its first 250 came."""
        return min(self.acknowledged.values(), default=None)


@dataclass(slots=True)
class Connection:
    """One connection of a provider's."""

    name: str
    opened_ns: int
    closed_ns: int | None = None
    is_turned_away: bool = False

    @property
    def provider(self) -> str:
        """Whose it is."""
        return self.name.rpartition("/")[0]


@dataclass(slots=True)
class Delivery:
    """One message on one connection, from its content to its answer."""

    connection: Connection
    begun_ns: int  # of the dot, where nobody told of the content
    message: str = ""
    recipients: tuple[str, ...] = ("",)
    digest: str | None = None
    worker: str = ""
    gateway: str = ""
    dot_ns: int | None = None
    ended_ns: int | None = None
    end: str = ""  # ok | fail | info
    code: int = 0

    def learn(self, event: Event) -> None:
        """Take what an event tells besides its time."""
        value = event.value
        self.message = value.get("message", self.message)
        self.recipients = tuple(value.get("recipients", self.recipients))
        self.digest = value.get("digest", self.digest)
        self.worker = value.get("worker", self.worker) or ""
        self.gateway = value.get("gateway", self.gateway) or ""
        self.code = value.get("code", self.code)

    @property
    def keys(self) -> list[Key]:
        """What it is a delivery of."""
        return [(self.message, recipient) for recipient in self.recipients]

    @property
    def is_taken(self) -> bool:
        """True when the provider had all of it and did not refuse it: the strictest reading."""
        return self.dot_ns is not None and self.end != FAIL

    @property
    def answered_ns(self) -> int | None:
        """When its 250 left."""
        return self.ended_ns if self.end == OK else None


@dataclass(slots=True)
class Kill:
    """One blow. `open`: what the queue had not recorded when its worker was dead; None: unknown."""

    at_ns: int
    role: str = ""
    worker: str = ""
    open: frozenset[str] | None = None
    begun: tuple[str, ...] = ()
    back_ms: float = 0.0


@dataclass(slots=True)
class Lease:
    """A delivery in the hands of a worker."""

    key: Key
    worker: str
    from_ns: int
    until_ns: float  # given back, over, or its worker died
    lent_until_ns: float  # the same, but for the death: what was sent before may come after it


@dataclass(slots=True)
class Limit:
    """What a provider allows from a moment on; None: anything."""

    at_ns: int
    rate_per_s: float | None
    window_s: float
    connections: int | None


@dataclass(slots=True)
class Mode:
    """A mode of a gateway: asked for, in force, and over."""

    gateway: str
    name: str
    allow: frozenset[str]
    from_ns: float
    until_ns: float = float("inf")


@dataclass(slots=True)
class Fate:
    """How the queue has one recipient at the end; `doubts` is None where it was not asked."""

    state: str
    doubts: int | None = None


@dataclass(slots=True)
class Facts:
    """All facts of a history; deliveries in order of their beginnings."""

    about: dict[str, Any] = field(default_factory=dict)
    sent: dict[str, Sent] = field(default_factory=dict)
    connections: list[Connection] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    refused: dict[Key, list[int]] = field(default_factory=lambda: defaultdict(list))  # codes
    kills: list[Kill] = field(default_factory=list)
    doubts: dict[Key, list[int]] = field(default_factory=lambda: defaultdict(list))
    records: dict[Key, list[int]] = field(default_factory=lambda: defaultdict(list))
    leases: list[Lease] = field(default_factory=list)
    limits: dict[str, list[Limit]] = field(default_factory=lambda: defaultdict(list))
    modes: list[Mode] = field(default_factory=list)
    fates: dict[Key, Fate] = field(default_factory=dict)


def read_facts(events: Iterable[Event]) -> Facts:
    """Return the facts of events in order of time."""
    reader = _Reader()
    for event in events:
        if (take := reader.takes.get(event.f)) is not None:
            take(event)
    return reader.facts


class _Reader:
    def __init__(self) -> None:
        self.facts = Facts()
        self._sends: dict[tuple[str, str], tuple[str, ...]] = {}  # begun, by process and message
        self._open: dict[str, Connection] = {}
        self._under_way: dict[str, Delivery] = {}  # by connection
        self._leases: dict[tuple[str, Key], Lease] = {}
        self._kills: dict[str, Kill] = {}  # by who strikes
        self.takes: dict[str, Callable[[Event], None]] = {
            "campaign": lambda event: self.facts.about.update(event.value),
            "send": self._send,
            "connect": self._connect,
            "deliver": self._deliver,
            "dot": self._dot,
            "limit": self._limit,
            "mode": self._mode,
            "lease": self._lease,
            "release": self._release,
            "doubt": lambda event: self._note(self.facts.doubts, event),
            "record": lambda event: self._note(self.facts.records, event),
            "kill": self._kill,
            "fate": self._fate,
        }

    def _send(self, event: Event) -> None:
        sent = self.facts.sent.setdefault(event.message, Sent())
        attempt = event.process, event.message
        if event.type == INVOKE:
            self._sends[attempt] = event.recipients
            sent.digests.add(event.value.get("digest"))
            for recipient in event.recipients:
                sent.begun.setdefault(recipient, event.time)
            return
        begun = self._sends.pop(attempt, sent.recipients)
        sent.end = event.type
        sent.gateway = event.value.get("gateway", sent.gateway) or ""
        if event.type == OK:
            for recipient in event.value.get("recipients", begun):
                sent.acknowledged.setdefault(recipient, event.time)

    def _connect(self, event: Event) -> None:
        if event.type == INVOKE:
            self._opened(event)
        else:
            self._close(event.process, event.time, is_turned_away=event.type == FAIL)

    def _close(self, name: str, at_ns: int, *, is_turned_away: bool = False) -> None:
        """End a connection, and what is under way on it without an answer."""
        if (connection := self._open.pop(name, None)) is not None:
            connection.is_turned_away = is_turned_away
            connection.closed_ns = at_ns
        if (delivery := self._under_way.pop(name, None)) is not None:
            delivery.ended_ns, delivery.end = at_ns, INFO

    def _opened(self, event: Event) -> Connection:
        self._close(event.process, event.time)  # a provider that was started again counts anew
        connection = self._open[event.process] = Connection(event.process, event.time)
        self.facts.connections.append(connection)
        return connection

    def _deliver(self, event: Event) -> None:
        if event.type == INVOKE:
            self._begin(event)
        else:
            self._end(event, event.type)

    def _dot(self, event: Event) -> None:
        delivery = self._under_way.get(event.process) or self._begin(event)
        delivery.learn(event)
        delivery.dot_ns = event.time

    def _begin(self, event: Event) -> Delivery:
        connection = self._open.get(event.process) or self._opened(event)
        delivery = Delivery(connection, event.time)
        delivery.learn(event)
        self._under_way[event.process] = delivery
        self.facts.deliveries.append(delivery)
        return delivery

    def _end(self, event: Event, end: str) -> None:
        delivery = self._under_way.pop(event.process, None)
        if delivery is not None:
            delivery.learn(event)
            if end == OK and delivery.dot_ns is None:  # nobody told of it, but it was read
                delivery.dot_ns = event.time
            delivery.ended_ns, delivery.end = event.time, end
        if end == FAIL:
            keys = delivery.keys if delivery else _keys(event)
            for key in keys:
                self.facts.refused[key].append(event.value.get("code", 0))

    def _limit(self, event: Event) -> None:
        value = event.value
        window_s = value.get("window_s", 10.0)
        self.facts.limits[event.process].append(
            Limit(event.time, value.get("rate_per_s"), window_s, value.get("connections"))
        )

    def _mode(self, event: Event) -> None:
        for mode in self.facts.modes:  # from the moment that another is asked for nobody knows
            if mode.gateway == event.process:
                mode.until_ns = min(mode.until_ns, event.time)
        if event.type == OK:
            value = event.value
            allow = frozenset(map(str.lower, value.get("allow", ())))
            mode = Mode(event.process, value["mode"], allow, event.time)
            self.facts.modes.append(mode)

    def _lease(self, event: Event) -> None:
        until_ns = event.value.get("until", float("inf"))
        for key in _keys(event):
            held = self._leases.get((event.process, key))
            if held is not None and held.until_ns >= event.time:
                held.until_ns = held.lent_until_ns = until_ns
                continue
            lease = self._leases[event.process, key] = Lease(
                key, event.process, event.time, until_ns, until_ns
            )
            self.facts.leases.append(lease)

    def _release(self, event: Event) -> None:
        for key in _keys(event):
            if (lease := self._leases.pop((event.process, key), None)) is not None:
                lease.until_ns = min(lease.until_ns, event.time)
                lease.lent_until_ns = lease.until_ns

    def _kill(self, event: Event) -> None:
        value = event.value
        kill = self._kills.get(event.process)
        if kill is None or event.type == INVOKE:
            kill = self._kills[event.process] = Kill(event.time)
            self.facts.kills.append(kill)
            self._die(value, event.time)
        kill.role = value.get("role", kill.role) or ""
        kill.worker = value.get("worker", kill.worker) or ""
        kill.back_ms = value.get("back_ms", kill.back_ms)
        if "open" in value:
            kill.open = frozenset(value["open"])
        kill.begun = tuple(value.get("begun", kill.begun))

    def _die(self, value: dict[str, Any], at_ns: int) -> None:
        """End the leases of a worker, the connections of a provider."""
        for (worker, _), lease in self._leases.items():
            if worker == value.get("worker"):
                lease.until_ns = min(lease.until_ns, at_ns)
        for name, connection in list(self._open.items()):
            if connection.provider == value.get("provider"):
                self._close(name, at_ns)

    def _fate(self, event: Event) -> None:
        value = event.value
        for key in _keys(event):
            self.facts.fates[key] = Fate(value["state"], value.get("doubts"))

    @staticmethod
    def _note(times: dict[Key, list[int]], event: Event) -> None:
        for key in _keys(event):
            times[key].append(event.time)


def _keys(event: Event) -> list[Key]:
    return [(event.message, recipient) for recipient in event.recipients]
