"""Exported mail into the queue, by the rules that hold for mail of local programs.

Rewriting, lists and routes are those of now, the mode is the stricter one of now and of when the
message was accepted; what SMTP would refuse is captured with its reason. A message carries a key
of its own, so that it is taken once however often it comes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from relaygw.inbound.data import ReceivedContent
from relaygw.inbound.drop_file import Drop
from relaygw.inbound.intake import Intake
from relaygw.inbound.local_mail import compose_local
from relaygw.mail.content import normalise_line_ends
from relaygw.mail.drop import COMPLETE_SUFFIX
from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.exported import Exported, NotExported
from relaygw.policy.modes import strictest
from relaygw.settings.mode import Mode

_KEY = "import-"
LISTENER = "import"
"""Where imported mail came in: no listener has this name, so that the mode of its acceptance holds
at each attempt, too (policy.modes)."""
_PIECE_BYTES = 128 * 1024


class Importer:
    """Makes messages to be stored of exported ones; `limit_bytes` is the largest content."""

    def __init__(self, intake: Intake, *, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._intake = intake
        self._seen: dict[str, int] = {}

    def has_space(self) -> bool:
        """False when the state volume is nearly full."""
        return self._intake.has_space()

    @contextmanager
    def composed(self, mail: Exported) -> Iterator[tuple[AcceptedMessage, Iterator[bytes]]]:
        """Yield the message, and for large content the chunks to store ahead of it.

        Two messages of one input that are the same in all are two. Raises NotExported for what
        cannot be a message.
        """
        if not mail.recipients:
            raise NotExported("nobody is named who is to have it; give --recipient")
        if mail.sender is None:
            raise NotExported("no sender is named; give --sender")
        if len(mail.content) > self.limit_bytes:
            raise NotExported(f"larger than max_message_size, {self.limit_bytes} bytes")
        mode = self._mode_of(mail)
        key = mail.key()
        number = self._seen[key] = self._seen.get(key, 0) + 1
        drop = Drop(
            name=f"{_KEY}{key}-{number}{COMPLETE_SUFFIX}",
            uid=os.getuid(),
            sender=mail.sender,
            recipients=mail.recipients,
            content=self._content(mail.content),
        )
        try:
            yield compose_local(self._intake, drop, listener=LISTENER, mode=mode)
        finally:
            drop.content.close()

    def _mode_of(self, mail: Exported) -> Mode:
        now = self._intake.modes.of(None, None)
        if mail.mode is None:
            return now
        try:
            return strictest(now, Mode(mail.mode))
        except ValueError:
            known = ", ".join(Mode)
            raise NotExported(f"mode {mail.mode[:40]!r} is none of {known}") from None

    def _content(self, data: bytes) -> ReceivedContent:
        data = normalise_line_ends(data)
        if data and not data.endswith(b"\n"):
            data += b"\r\n"
        content = ReceivedContent(self._intake.state_dir)
        for start in range(0, len(data), _PIECE_BYTES):
            content.add(data[start : start + _PIECE_BYTES])
        content.read_head()
        return content
