"""A user who has logged in, and what that user may do."""

from __future__ import annotations

from relaygw.policy.patterns import AddressPatterns
from relaygw.settings.listener import User


class Login:
    """One user of the configuration."""

    def __init__(self, user: User) -> None:
        self.name = user.name
        self._senders = AddressPatterns(user.senders) if user.senders else None

    def may_send_as(self, sender: str) -> bool:
        """True if the user may use this envelope sender; the null sender is nobody's."""
        return not sender or self._senders is None or self._senders.matches(sender)
