"""Wake-up hints between instances that share a PostgreSQL database: NOTIFY and LISTEN.

Beside the transactions, never in them: a commit that notifies waits for all others that do. A
hint that is lost costs a second, the time to the next poll. Through a pooler hints arrive in
session mode only; everything else works in transaction mode, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import psycopg

from relaygw.store.database import Place

CHANNEL = "relaygw_queue"
_PAUSE_S = 0.02  # many messages, one hint
_RECONNECT_S = 2.0
_LISTEN_STEP_S = 1.0


def _connect(place: Place) -> psycopg.Connection[object]:
    # nothing is SET here: through a pooler the next client would get the session with it
    return psycopg.connect(place.url, password=place.password(), autocommit=True, connect_timeout=5)


class NotifySender:
    """Tells all instances that there is something new; never blocks, never fails."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._wanted = threading.Event()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notify", daemon=True)
        self._thread.start()

    def send(self) -> None:
        """Send a hint soon."""
        self._wanted.set()

    def close(self) -> None:
        """Stop; a hint that waits may be lost."""
        self._is_closed.set()
        self._wanted.set()

    def _run(self) -> None:
        connection: psycopg.Connection[object] | None = None
        while self._wanted.wait() and not self._is_closed.is_set():
            self._wanted.clear()
            try:
                connection = connection or _connect(self._place)
                connection.execute(f"NOTIFY {CHANNEL}")
                self._is_closed.wait(_PAUSE_S)
            except Exception:
                # the poll finds what this hint was about
                if connection is not None:
                    connection.close()
                connection = None
                self._is_closed.wait(_RECONNECT_S)
        if connection is not None:
            connection.close()


class NotifyListener:
    """Calls `wake`, in a thread of its own, when another instance has something new."""

    def __init__(self, place: Place, wake: Callable[[], None]) -> None:
        self._place = place
        self._wake = wake
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="listen", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop within a second."""
        self._is_closed.set()

    def _run(self) -> None:
        while not self._is_closed.is_set():
            with suppress(Exception):  # the poll goes on meanwhile
                self._listen()
            self._is_closed.wait(_RECONNECT_S)

    def _listen(self) -> None:
        with _connect(self._place) as connection:
            connection.execute(f"LISTEN {CHANNEL}")
            while not self._is_closed.is_set():
                for _ in connection.notifies(timeout=_LISTEN_STEP_S, stop_after=1):
                    if not self._is_closed.is_set():
                        self._wake()
