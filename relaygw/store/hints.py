"""Wake-up hints between processes of one host: an empty datagram says "look at the queue".

Nothing depends on a hint: whoever waits also polls each second. A socket that is full,
gone or was never made is therefore no error.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path

_TICK_NS = 100_000_000  # file times are coarser than the clock


def hint_directory(state_dir: Path) -> Path:
    """Return the directory of the sockets, one for each listening process."""
    return state_dir / "wake"


def open_hint_socket(directory: Path, name: str) -> socket.socket | None:
    """Return a bound, non-blocking socket to read hints from, or None if that cannot be."""
    path = directory / name
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.setblocking(False)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        receiver.bind(str(path))
    except OSError:  # a path beyond 107 bytes, for one
        receiver.close()
        return None
    return receiver


class HintSender:
    """Wakes every process that listens in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._listed_at_ns = -1  # the directory's time of change when it was listed
        self._receivers: list[str] = []

    def send(self) -> None:
        """Send a hint to all; never blocks, never fails."""
        with contextlib.suppress(OSError):
            changed_at_ns = self._directory.stat().st_mtime_ns
            if changed_at_ns != self._listed_at_ns:
                self._receivers = [entry.path for entry in os.scandir(self._directory)]
                # another change within the clock's tick would not show in the time
                is_settled = time.time_ns() - changed_at_ns > _TICK_NS
                self._listed_at_ns = changed_at_ns if is_settled else -1
        for receiver in self._receivers:
            try:
                self._socket.sendto(b"", receiver)
            except ConnectionRefusedError:  # whoever bound it was killed
                with contextlib.suppress(OSError):
                    Path(receiver).unlink()
            except OSError:
                pass  # full, or gone: see above

    def close(self) -> None:
        """Close the sending socket."""
        self._socket.close()
