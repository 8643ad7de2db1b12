"""Mail that stands still, as the queue counts it, and how it gets another route."""

from __future__ import annotations

from dataclasses import dataclass

from relaygw.mail.hold import HoldCause


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldMail:
    """The deliveries of one route that are held for one cause."""

    route: str
    cause: HoldCause
    deliveries: int
    since_ms: int  # the longest of them
    examples: tuple[str, ...]  # queue ids: the oldest, and the newest


@dataclass(frozen=True, slots=True, kw_only=True)
class MailInHand:
    """A delivery that a living worker has in hand."""

    queue_id: str
    delivery_no: int
    route: str
    recipients: int  # that still wait
    since_ms: int
    worker: str  # the name of its host
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteWay:
    """The route that some recipients of a delivery take by the rules of now."""

    route: str
    stream: str
    rcpt_nos: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerouting:
    """A delivery on its way to other routes: it takes the first, new ones take the others."""

    queue_id: str
    delivery_no: int
    route: str  # the one it was on
    ways: tuple[RouteWay, ...]
