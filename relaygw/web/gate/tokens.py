"""Tokens of programs (`web.tokens`): where they are kept is read once, and again when none fits.

Kept in memory as keyed hashes. A token that is short enough to be guessed, or was never read,
lets nobody in, and the log says why; one that cannot be read any more is the same as before, for
anybody can have it read.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Iterable

from relaygw.errors import SettingsError
from relaygw.settings.web import WebToken

MIN_TOKEN_LENGTH = 20
READ_AGAIN_S = 30.0
"""Not sooner than this after the last time, whoever asks."""
_log = logging.getLogger("relaygw.web")


class Tokens:
    """Finds the program whose token was given."""

    def __init__(self, tokens: Iterable[WebToken]) -> None:
        self._tokens = tuple(tokens)
        self._names = frozenset(token.name for token in self._tokens)
        self._key = secrets.token_bytes(32)
        self._holders: dict[bytes, WebToken] = {}
        self._read_at_s: float | None = None
        self._reading = asyncio.Lock()

    def is_known(self, name: str) -> bool:
        """True if there is a token of that name."""
        return name in self._names

    async def holder(self, given: bytes) -> WebToken | None:
        """Return the token that was given, or None."""
        digest = self._digest(given)
        if self._tokens and digest not in self._holders:
            await self._read_again()
        return self._holders.get(digest)

    async def _read_again(self) -> None:
        async with self._reading:
            now_s = time.monotonic()
            if self._read_at_s is not None and now_s < self._read_at_s + READ_AGAIN_S:
                return
            self._holders = await asyncio.to_thread(self._read)
            self._read_at_s = now_s

    def _read(self) -> dict[bytes, WebToken]:
        holders: dict[bytes, WebToken] = {}
        for token in self._tokens:
            try:
                secret = token.token.read()
            except SettingsError as error:
                before = {digest: one for digest, one in self._holders.items() if one is token}
                effect = "stays as it was" if before else "lets nobody in"
                _log.warning("web.tokens: %s %s: %s", token.name, effect, error)
                holders |= before
                continue
            if len(secret) < MIN_TOKEN_LENGTH:
                _log.warning(
                    "web.tokens: %s lets nobody in: the token has %d characters; make one of %d or "
                    "more, e.g. by: openssl rand -hex 20",
                    token.name,
                    len(secret),
                    MIN_TOKEN_LENGTH,
                )
                continue
            holders[self._digest(secret.encode())] = token
        return holders

    def _digest(self, secret: bytes) -> bytes:
        return hashlib.blake2b(secret, key=self._key).digest()
