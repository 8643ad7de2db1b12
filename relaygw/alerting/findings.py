"""What the rules see and what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from relaygw.observe.maildrop import LeftMail
from relaygw.policy.untended import LostInstance, Untended
from relaygw.settings.alerts import Rule
from relaygw.store.holds import Hold
from relaygw.store.queue import LaneCount
from relaygw.store.watch import HistoryPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFacts:
    """What the store knows of the queue that all instances share; costs some time to gather."""

    lanes: Sequence[LaneCount] = ()
    points: Sequence[HistoryPoint] = ()  # of the last two hours
    doubts: Mapping[str, int] = field(default_factory=dict)  # open deliveries by provider
    quotas: Mapping[str, float] = field(default_factory=dict)  # provider: share that is used
    busiest_hour: Mapping[str, int] | None = None  # route: recipients; None: not known yet
    untended: Sequence[Untended] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What is known of one host without the store."""

    host: str
    volumes: Mapping[str, float] = field(default_factory=dict)  # directory: free share
    certificates: Mapping[str, float] = field(default_factory=dict)  # listener: seconds left
    maildrop: LeftMail | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something is wrong now; rule and key tell it from others."""

    rule: Rule
    key: str
    summary: str
    remedy: str
    since_ms: int | None = None  # when it began, where that is known


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetFacts:
    """All that the rules of the shared queue look at."""

    now_ms: int
    holds: Sequence[Hold] = ()
    unreached: Mapping[str, float] = field(default_factory=dict)  # provider: seconds, here
    lost: Sequence[LostInstance] = ()
    queue: QueueFacts = QueueFacts()
    clock_step: str | None = None  # how the clock of the queue was set lately
