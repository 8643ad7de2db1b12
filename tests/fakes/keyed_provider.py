"""A provider that knows mail by an idempotency key, as Resend documents it.

    async with KeyedProvider() as provider:
        provider.loses_first = True     # takes each mail, and hangs up instead of saying so
        ... relay by provider.settings(idempotency={"header": HEADER, "life": "24h"}) ...
        assert provider.extras() == 0

A key that it has seen within 24 hours with the same mail is answered as before, and nothing is
sent; with another one it is a conflict. `mailbox` is what the recipients get, `messages` each try.
With `knows_keys` off it takes every try for another mail: the control that must show extras.
resend.com/docs/dashboard/emails/idempotency-keys
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.fakes.scripted_provider import Action, ReceivedMessage, Script, ScriptedProvider

HEADER = "Resend-Idempotency-Key"
LIFE_S = 86_400.0
KEYED = {"idempotency": {"header": HEADER, "life": "24h"}}
_CONFLICT = b"550 5.7.0 invalid_idempotent_request: this key was used with other content\r\n"
_INVALID = b"550 5.7.0 invalid_idempotency_key: write 1 to 256 characters\r\n"
LOST: Script = (Action.RECORD, Action.RESET)
"""It takes the mail and never says so."""
HUNG: Script = (Action.RECORD, Action.HANG)
SPARED = b"Subject: spared"  # of mail whose answer is not lost
_KEY = re.compile(rb"^Resend-Idempotency-Key:[ \t]*(.*)\r\n", re.IGNORECASE | re.MULTILINE)


def keys_of(message: ReceivedMessage) -> list[bytes]:
    """Return the keys in the header of a message."""
    header = message.content.partition(b"\r\n\r\n")[0] + b"\r\n"
    return _KEY.findall(header)


class KeyedProvider(ScriptedProvider):
    """See the module's text; `clock` tells how old a key is.

    With `hangs_each` so many of the answers that are lost leave the connection open, as if it came
    to nobody: only the death of who waits for it ends that.
    """

    def __init__(
        self,
        *,
        knows_keys: bool = True,
        loses_first: bool = False,
        hangs_each: int = 0,
        clock: Callable[[], float] = time.time,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.knows_keys = knows_keys
        self.loses_first = loses_first
        self.hangs_each = hangs_each
        self.mailbox: list[ReceivedMessage] = []
        self.lost = 0  # answers
        self.hung = 0  # answers of these that a worker waits for until it dies
        self._clock = clock
        self._known: dict[bytes, tuple[object, float]] = {}
        self._tries: Counter[object] = Counter()

    def extras(self) -> int:
        """Return how many mails recipients got that they had already."""
        return sum(count - 1 for count in self.copies().values())

    def copies(self) -> Counter[tuple[str, bytes]]:
        """Return how often each recipient got each mail, the key aside."""
        return Counter(
            (address, _KEY.sub(b"", message.content))
            for message in self.mailbox
            for address in message.recipients
        )

    def reply_to(self, message: ReceivedMessage) -> bytes:
        keys = keys_of(message)
        if self.loses_first and SPARED not in message.content:
            seen = (message.recipients, _KEY.sub(b"", message.content))
            self._tries[seen] += 1
            if self._tries[seen] == 1:
                self.lost += 1
                is_hung = bool(self.hangs_each) and self.lost % self.hangs_each == 0
                self.hung += is_hung
                self.script("CONTENT", HUNG if is_hung else LOST)
        if not self.knows_keys or not keys:
            return super().reply_to(message)
        if len(keys) > 1 or not 0 < len(keys[0]) <= 256:
            return _INVALID
        known = self._fresh(keys[0])
        return _CONFLICT if known not in (None, _payload(message)) else super().reply_to(message)

    def take(self, message: ReceivedMessage) -> None:
        super().take(message)
        key = next(iter(keys_of(message)), None) if self.knows_keys else None
        if key is None or self._fresh(key) is None:
            self.mailbox.append(message)
        if key is not None:
            self._known.setdefault(key, (_payload(message), self._clock()))

    def _fresh(self, key: bytes) -> object | None:
        known = self._known.get(key)
        if known is not None and self._clock() - known[1] >= LIFE_S:
            del self._known[key]
            return None
        return known[0] if known is not None else None


def _payload(message: ReceivedMessage) -> object:
    return message.sender, message.recipients, message.content
