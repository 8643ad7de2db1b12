"""What a form makes of events: lines, each with the daemon that says it and its level."""

from __future__ import annotations

from typing import Protocol

from relaygw.mail.state import RecipientState
from relaygw.observe.events import Event, Level

Line = tuple[str, Level, str]
"""Daemon, level, and the text: printable, without a line end."""

STATUS = {
    RecipientState.DELIVERED: "sent",
    RecipientState.PENDING: "deferred",
    RecipientState.BOUNCED: "bounced",
    RecipientState.EXPIRED: "expired",
    RecipientState.CAPTURED: "captured",
    RecipientState.BLOCKED: "blocked",
    RecipientState.CANCELLED: "deleted",
}
"""What logs call the states: Postfix's words, and our own where it has none."""


class Form(Protocol):
    """How events read."""

    def lines(self, event: Event) -> list[Line]:
        """Return the lines of one event."""
