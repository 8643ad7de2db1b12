"""A line of the log: what it is, how text from outside stands in it, what stands around it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from relaygw.mail.state import RecipientState
from relaygw.observe.events import Event, Level

MAX_TEXT_CHARACTERS = 2000
"""What a line shows of one free text; the rest is cut off."""
_MAIL = 2 << 3  # syslog's facility `mail`, in front of the severity

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


# --- text from outside ---------------------------------------------------------------------


def escape(text: str) -> str:
    """Return `text` with everything spelled out that is not to be seen.

    That is control characters, line ends of any kind, marks that turn the direction of
    text, and halves of characters. What is left is printable and stays on its line.
    """
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def cut(text: str) -> str:
    """Return `text`, or its beginning where it is longer than a line should be."""
    if len(text) <= MAX_TEXT_CHARACTERS:
        return text
    return f"{text[:MAX_TEXT_CHARACTERS]}..."


# --- time, host, name of the program, process ----------------------------------------------

Framing = Callable[[Sequence[Line]], list[bytes]]
"""Makes one record of each line; what cannot be written as UTF-8 is spelled out."""


class _Clock:
    """The time as syslog writes it, made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._stamp = ""

    def stamp(self) -> str:
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._stamp = time.strftime("%b %e %H:%M:%S", time.localtime(now))
        return self._stamp


def in_a_file(*, hostname: str, name: str) -> Framing:
    """Return the framing that a syslog daemon would give each line in its own file."""
    clock = _Clock()
    host = hostname.partition(".")[0]

    def frame(lines: Sequence[Line]) -> list[bytes]:
        head, tail = f"{clock.stamp()} {host} {name}/", f"[{os.getpid()}]: "
        return [_bytes(f"{head}{daemon}{tail}{text}\n") for daemon, _, text in lines]

    return frame


def bare(lines: Sequence[Line]) -> list[bytes]:
    """Frame nothing: a form such as JSON says everything itself."""
    return [_bytes(f"{text}\n") for _, _, text in lines]


def for_syslog(*, name: str) -> Framing:
    """Return the framing of a datagram to the local syslog daemon, which adds the host."""
    clock = _Clock()

    def frame(lines: Sequence[Line]) -> list[bytes]:
        head, tail = f"{clock.stamp()} {name}/", f"[{os.getpid()}]: "
        return [
            _bytes(f"<{_MAIL + level}>{head}{daemon}{tail}{text}") for daemon, level, text in lines
        ]

    return frame


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
