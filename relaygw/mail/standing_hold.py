"""A standing hold: mail that waits, what is queued and what comes, until an end or an operator."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.keys import packed


class HoldScope(StrEnum):
    """What the value of a standing hold is compared with; addresses and domains as folded."""

    RECIPIENT_DOMAIN = "recipient_domain"
    RECIPIENT = "recipient"
    SENDER = "sender"  # "" is the null sender
    SENDER_DOMAIN = "sender_domain"
    SUBJECT = "subject"  # contains it, in any case
    ROUTE = "route"
    CLIENT = "client"  # its address is in this network


_WORDS = {
    HoldScope.RECIPIENT_DOMAIN: "mail to {}",
    HoldScope.RECIPIENT: "mail to {}",
    HoldScope.SENDER: "mail of {}",
    HoldScope.SENDER_DOMAIN: "mail of {}",
    HoldScope.SUBJECT: "mail with “{}” in its subject",
    HoldScope.ROUTE: "mail of route {}",
    HoldScope.CLIENT: "mail from {}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingHold:
    """All mail that waits because somebody said so, by one thing that it has in common."""

    hold_id: str
    scope: HoldScope
    value: str
    reason: str
    by: str  # the operator
    since_ms: int
    until_ms: int | None  # None: somebody ends it

    @property
    def words(self) -> str:
        """The mail that waits, in words."""
        return _WORDS[self.scope].format(self.value or "<>")

    @property
    def cause(self) -> HoldCause:
        """What its mail is held for."""
        why = f" ({self.reason})" if self.reason else ""
        return HoldCause(HoldCode.STANDING, packed(self.hold_id, f"{self.words}{why}"))

    def is_over(self, now_ms: int) -> bool:
        """Return whether its time has passed."""
        return self.until_ms is not None and self.until_ms <= now_ms
