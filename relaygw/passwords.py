"""Passwords of people and programs that log in, by SMTP or in the browser, and guessing at them.

argon2 is verified in threads. A client that opens one connection a mail, or sends its password
with each request, would pay for it each time: what was verified a moment ago is known by a keyed
hash and costs nothing. Unknown users, wrong passwords and the time they take look the same.
Knows no protocol: whoever asks says for whom failures are counted.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import argon2

REMEMBER_S = 300.0
FAILURE_S = 1.5
"""When a failed login is answered, counted from its beginning."""
MAX_VERIFYING = 32
MAX_FAILURES = 10
"""Wrong passwords from one client, within `WITHIN_S`, that lock it out for `LOCKED_S`."""
WITHIN_S = 600.0
LOCKED_S = 600.0
_THREADS = 2
_MAX_REMEMBERED = 4096
MAX_ADDRESSES = 10_000
_HASHER = argon2.PasswordHasher()  # verifies whatever kind of argon2 a hash is of


Uses = dict[tuple[str, str], int]
"""When names were last used to log in, in ms, by kind (web, token, smtp) and name."""


class LoginBusy(Exception):
    """Too many logins are being verified, or this client failed too often; try again later."""


class Guessing:
    """Failed logins by client, in memory; an address that has been good for long is forgotten."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._locked_until_s: OrderedDict[str, float] = OrderedDict()

    def is_locked(self, guesser: str) -> bool:
        """True while no login of `guesser` is even looked at."""
        return time.monotonic() < self._locked_until_s.get(guesser, 0.0)

    def count_failure(self, guesser: str) -> None:
        """Note a failure; the last of too many locks."""
        now_s = time.monotonic()
        recent = self._failures.setdefault(guesser, deque(maxlen=MAX_FAILURES))
        self._failures.move_to_end(guesser)
        recent.append(now_s)
        if len(recent) == MAX_FAILURES and now_s - recent[0] < WITHIN_S:
            self._locked_until_s[guesser] = now_s + LOCKED_S
            self._locked_until_s.move_to_end(guesser)
            del self._failures[guesser]
        for table in (self._failures, self._locked_until_s):
            while len(table) > MAX_ADDRESSES:
                table.popitem(last=False)


class Passwords:
    """Verifies passwords against the hashes of one process's users, which are not none."""

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = dict(hashes)
        # verified against for a user that does not exist: as expensive as the first one's
        of_first = argon2.extract_parameters(next(iter(self._hashes.values())))
        hasher = argon2.PasswordHasher.from_parameters(of_first)
        self._nobody = hasher.hash(secrets.token_bytes(32))
        self._key = secrets.token_bytes(32)
        self._known_until_s: OrderedDict[bytes, float] = OrderedDict()
        self._guessing = Guessing()
        self._verifying = 0
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="argon2")

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def is_known(self, name: str) -> bool:
        """True if there is such a user; for the log, never for the client."""
        return name in self._hashes

    def is_remembered(self, name: str, password: bytes) -> bool:
        """True if these were right a moment ago; costs next to nothing."""
        return time.monotonic() < self._known_until_s.get(self._digest(name, password), 0.0)

    async def verify(self, name: str, password: bytes, *, guesser: str) -> bool:
        """Return whether the password is right; a no takes FAILURE_S at least.

        `guesser` is whoever failures are counted for. Raises LoginBusy.
        """
        began_s = time.monotonic()
        if self._guessing.is_locked(guesser):
            raise LoginBusy("too many failed logins")
        if self.is_remembered(name, password):
            return True
        is_right = await self._is_right(name, password)
        # by guesses that were verified beside this one; right or wrong, nobody is told
        if self._guessing.is_locked(guesser):
            raise LoginBusy("too many failed logins")
        if is_right:
            known_until_s, digest = self._known_until_s, self._digest(name, password)
            known_until_s[digest] = time.monotonic() + REMEMBER_S
            known_until_s.move_to_end(digest)
            while len(known_until_s) > _MAX_REMEMBERED:
                known_until_s.popitem(last=False)
            return True
        self._guessing.count_failure(guesser)
        await asyncio.sleep(began_s + FAILURE_S - time.monotonic())
        return False

    def _digest(self, name: str, password: bytes) -> bytes:
        return hashlib.blake2b(f"{name}\0".encode() + password, key=self._key).digest()

    async def _is_right(self, name: str, password: bytes) -> bool:
        """Return after the whole work of argon2, also for nobody."""
        if self._verifying >= MAX_VERIFYING:
            raise LoginBusy("too many logins at once")
        known = self._hashes.get(name)
        self._verifying += 1
        try:
            is_right = await asyncio.get_running_loop().run_in_executor(
                self._threads, _fits, known or self._nobody, password
            )
        finally:
            self._verifying -= 1
        return known is not None and is_right


def _fits(password_hash: str, password: bytes) -> bool:
    try:
        return _HASHER.verify(password_hash, password)
    except argon2.exceptions.VerificationError:
        return False
