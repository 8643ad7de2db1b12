"""What stands around a line on its way out: time, host, name of the program, process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from relaygw.observe.form import Line

_MAIL = 2 << 3  # syslog's facility `mail`, in front of the severity

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
