"""Wake-up hints, "look at the queue": datagrams on a host, NOTIFY between instances.

Whoever waits also polls each second. So a socket that is full, gone or was never made, and a server
that is away, is no error.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from relaygw.mail.clock import is_settled

if TYPE_CHECKING:
    import psycopg

    from relaygw.store.database import Place

CHANNEL = "relaygw_queue"
_PAUSE_S = 0.02  # many messages, one hint
_RECONNECT_S = 2.0
_LISTEN_STEP_S = 1.0


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
        with suppress(FileNotFoundError):
            path.unlink()
        receiver.bind(str(path))
    except OSError:  # a path beyond 107 bytes, for one
        receiver.close()
        return None
    return receiver


class HintSender:
    """Wakes every process that listens in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = str(directory)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._listed_at_ns = -1  # the directory's time of change when it was listed
        self._receivers: list[str] = []

    def send(self) -> None:
        """Send a hint to all; never blocks, never fails."""
        with suppress(OSError):
            changed_at_ns = os.stat(self._directory).st_mtime_ns  # noqa: PTH116 - with each mail
            if changed_at_ns != self._listed_at_ns:
                self._receivers = [entry.path for entry in os.scandir(self._directory)]
                self._listed_at_ns = changed_at_ns if is_settled(changed_at_ns) else -1
        for receiver in self._receivers:
            try:
                self._socket.sendto(b"", receiver)
            except ConnectionRefusedError:  # whoever bound it was killed
                with suppress(OSError):
                    Path(receiver).unlink()
            except OSError:
                pass  # full, or gone: see above

    def close(self) -> None:
        """Close the sending socket."""
        self._socket.close()


# --- between instances --------------------------------------------------------------------


def _connect(place: Place) -> psycopg.Connection[object]:
    import psycopg

    # nothing is SET or prepared: through a pooler the next client would get the session with it
    return psycopg.connect(
        place.url,
        password=place.password(),
        autocommit=True,
        connect_timeout=5,
        prepare_threshold=None,
    )


class NotifySender:
    """Tells all instances that there is something new; never blocks, never fails.

    Never in a transaction: a commit that notifies waits for all others that do. Through a pooler
    hints arrive in session mode only.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._wanted = threading.Event()
        self._is_closed = threading.Event()
        threading.Thread(target=self._run, name="notify", daemon=True).start()

    def send(self) -> None:
        """Send a hint soon."""
        self._wanted.set()

    def close(self) -> None:
        """Stop; a hint that waits may be lost."""
        self._is_closed.set()
        self._wanted.set()

    def _run(self) -> None:
        while self._wanted.wait() and not self._is_closed.is_set():
            # what fails is found by the poll
            with suppress(Exception), _connect(self._place) as connection:
                while self._wanted.wait() and not self._is_closed.is_set():
                    self._wanted.clear()
                    connection.execute(f"NOTIFY {CHANNEL}")
                    self._is_closed.wait(_PAUSE_S)
            self._is_closed.wait(_RECONNECT_S)


class NotifyListener:
    """Calls `wake`, in a thread of its own, when another instance has something new."""

    def __init__(self, place: Place, wake: Callable[[], None]) -> None:
        self._place = place
        self._wake = wake
        self._is_closed = threading.Event()
        threading.Thread(target=self._run, name="listen", daemon=True).start()

    def close(self) -> None:
        """Stop within a second."""
        self._is_closed.set()

    def _run(self) -> None:
        while not self._is_closed.is_set():
            # the poll goes on meanwhile
            with suppress(Exception), _connect(self._place) as connection:
                connection.execute(f"LISTEN {CHANNEL}")
                while not self._is_closed.is_set():
                    for _ in connection.notifies(timeout=_LISTEN_STEP_S, stop_after=1):
                        if not self._is_closed.is_set():
                            self._wake()
            self._is_closed.wait(_RECONNECT_S)
