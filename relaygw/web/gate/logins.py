"""Passwords of `web.users`, by the login page or HTTP basic: slow to guess, no name is locked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from relaygw.access import LoginBusy, Passwords
from relaygw.settings.web import WebUser
from relaygw.web.gate.name_delays import NameDelays

MAX_PASSWORD_BYTES = 1024
_log = logging.getLogger("relaygw.web")


class Logins:
    """Verifies passwords for one web role."""

    def __init__(self, users: Iterable[WebUser]) -> None:
        self._users = {user.name: user for user in users}
        hashes = {user.name: user.password_hash for user in self._users.values()}
        self._passwords = Passwords(hashes) if hashes else None
        self._delays = NameDelays()

    def user(self, name: str) -> WebUser | None:
        """Return a user by name."""
        return self._users.get(name)

    async def log_in(self, name: str, password: bytes, *, guesser: str) -> WebUser | None:
        """Return the user, or None, which takes a while; `guesser` is whom failures count for.

        Raises LoginBusy while nothing from there is looked at.
        """
        if self._passwords is None or len(password) > MAX_PASSWORD_BYTES:
            return None
        if not self._passwords.is_remembered(name, password):
            await asyncio.sleep(self._delays.delay_s(name))
        # an unknown name may be a password in the wrong field
        shown = name if self._passwords.is_known(name) else "(unknown)"
        try:
            is_right = await self._passwords.verify(name, password, guesser=guesser)
        except LoginBusy as error:
            _log.warning("login of %s from %s put off: %s", shown, guesser, error)
            raise
        if is_right:
            return self._users[name]
        self._delays.count_failure(name)
        _log.warning("login of %s from %s failed", shown, guesser)
        return None
