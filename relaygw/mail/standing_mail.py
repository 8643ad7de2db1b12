"""Mail that does not move, as the queue counts it."""

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
