"""Who may log in: argon2 hashes verified in threads, remembered, and guessing made slow.

A client that opens one connection a mail logs in each time; what was verified a moment ago is
known by a keyed hash of the credentials and costs no argon2. Unknown users, wrong passwords and
the time they take cannot be told apart.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import argon2
from argon2.low_level import Type, verify_secret

from relaygw.inbound.guessing import Guessing
from relaygw.inbound.identity import Login
from relaygw.inbound.login import LoginBusy
from relaygw.settings.model import User

REMEMBER_S = 300.0
FAILURE_S = 1.5
"""When a failed login is answered, counted from its beginning."""
MAX_VERIFYING = 32
_THREADS = 2
_MAX_REMEMBERED = 4096
_TYPES = {"argon2id": Type.ID, "argon2i": Type.I, "argon2d": Type.D}


class Authenticator:
    """Verifies logins of all listeners of one front process."""

    def __init__(self, users: Iterable[User]) -> None:
        self._users = {user.name: (user.password_hash, Login(user)) for user in users}
        # verified against for a user that does not exist: as expensive as the first one's
        first = next(iter(self._users.values()))[0]
        self._nobody = _like(first)
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, tuple[Login, float]] = OrderedDict()
        self._guessing = Guessing()
        self._verifying = 0
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="argon2")

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def is_known(self, name: str) -> bool:
        """True if there is such a user; for the log, never for the client."""
        return name in self._users

    async def log_in(self, name: str, password: bytes, *, guesser: str) -> Login | None:
        """Return the login, or None, which takes FAILURE_S at least. Raises LoginBusy.

        `guesser` is whoever failures are counted for.
        """
        began_s = time.monotonic()
        if self._guessing.is_locked(guesser):
            raise LoginBusy("too many failed logins")
        digest = hashlib.blake2b(f"{name}\0".encode() + password, key=self._key).digest()
        login = self._remembered(digest)
        if login is None:
            login = await self._verified(name, password)
            if login is not None:
                self._remember(digest, login)
        if login is None:
            self._guessing.count_failure(guesser)
            await asyncio.sleep(began_s + FAILURE_S - time.monotonic())
        return login

    def _remembered(self, digest: bytes) -> Login | None:
        known = self._known.get(digest)
        if known is None:
            return None
        login, until_s = known
        return login if time.monotonic() < until_s else None

    def _remember(self, digest: bytes, login: Login) -> None:
        self._known[digest] = (login, time.monotonic() + REMEMBER_S)
        self._known.move_to_end(digest)
        while len(self._known) > _MAX_REMEMBERED:
            self._known.popitem(last=False)

    async def _verified(self, name: str, password: bytes) -> Login | None:
        """Return the login after the whole work of argon2, also for nobody."""
        if self._verifying >= MAX_VERIFYING:
            raise LoginBusy("too many logins at once")
        known = self._users.get(name)
        self._verifying += 1
        try:
            is_right = await asyncio.get_running_loop().run_in_executor(
                self._threads, _is_right, known[0] if known else self._nobody, password
            )
        finally:
            self._verifying -= 1
        return known[1] if known and is_right else None


def _is_right(password_hash: str, password: bytes) -> bool:
    kind = _TYPES[password_hash.split("$")[1]]
    try:
        verify_secret(password_hash.encode(), password, kind)
    except argon2.exceptions.VerificationError:
        return False
    return True


def _like(password_hash: str) -> str:
    """Return a hash of no password that is as expensive to verify as `password_hash`."""
    of = argon2.extract_parameters(password_hash)
    return argon2.PasswordHasher(
        time_cost=of.time_cost,
        memory_cost=of.memory_cost,
        parallelism=of.parallelism,
        hash_len=of.hash_len,
        salt_len=of.salt_len,
        type=of.type,
    ).hash(secrets.token_bytes(32))
