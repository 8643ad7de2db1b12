"""Who may log in to the listeners, and who that is to the policy."""

from __future__ import annotations

from collections.abc import Iterable

from relaygw.access.passwords import Passwords
from relaygw.inbound.identity import Login
from relaygw.settings.listener import User


class Authenticator:
    """Verifies logins of all listeners of one front process."""

    def __init__(self, users: Iterable[User]) -> None:
        listed = tuple(users)
        self._logins = {user.name: Login(user) for user in listed}
        self._passwords = Passwords({user.name: user.password_hash for user in listed})

    def close(self) -> None:
        """Stop the threads."""
        self._passwords.close()

    def is_known(self, name: str) -> bool:
        """True if there is such a user; for the log, never for the client."""
        return self._passwords.is_known(name)

    async def log_in(self, name: str, password: bytes, *, guesser: str) -> Login | None:
        """Return the login, or None, which takes a while. Raises LoginBusy.

        `guesser` is whoever failures are counted for.
        """
        is_right = await self._passwords.verify(name, password, guesser=guesser)
        return self._logins[name] if is_right else None
