"""The front of one session: the product's own, on a loop with virtual time, without a socket."""

from __future__ import annotations

import random
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from bench.fuzzing.profiles import Profile, settings_of
from bench.fuzzing.queue import FuzzedDatabase
from bench.simulation import clocks
from bench.simulation.loop import Machine, Process, VirtualLoop
from bench.simulation.seams import BatchQueue, BatchThread
from relaygw.inbound.connection import BUFFER_BYTES, Connection
from relaygw.inbound.intake import Intake
from relaygw.inbound.listeners import FrontService
from relaygw.observe.maillog import Channel, MailLog
from relaygw.observe.observer import FrontObserver
from relaygw.observe.outlets import in_a_file
from relaygw.observe.postfix_form import PostfixForm
from relaygw.store import batch_writer

PIECE_BYTES = 64 * 1024  # that a transport brings at once
_MOST_HELD_BYTES = 2 * BUFFER_BYTES + 2 * PIECE_BYTES


def close_seams() -> None:
    """Let the thread of commits be a moment of the loop, in this process for good."""
    vars(batch_writer).update(SimpleQueue=BatchQueue, Thread=BatchThread)


@cache
def _state_directory() -> Path:
    # large content only: the limit of sessions keeps it in memory
    return Path(tempfile.gettempdir())


class Lines:
    """An outlet of the log, in memory."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def send(self, records: Sequence[bytes]) -> int:
        self.lines += [one.decode() for one in records]
        return sum(map(len, records))

    def wait(self, timeout_s: float) -> None:
        raise AssertionError("memory is never full")

    def reopen(self) -> None:
        """Nothing was closed."""

    def close(self) -> None:
        """Nothing is open."""


class Wire:
    """A transport that notes what is written, and that may be full."""

    def __init__(self, peer: str, wrote: Callable[[bytes], None], front: Front) -> None:
        self._peer, self._wrote, self._front = peer, wrote, front
        self.is_closed = self.is_paused = self.is_full = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self._peer, 5000) if name == "peername" else default

    def write(self, data: bytes) -> None:
        self._wrote(data)

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._front.closed()

    abort = close

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False
        self._front.read_on()

    def get_write_buffer_size(self) -> int:
        return int(self.is_full)


class Front:
    """A front with one connection, and what is seen of it."""

    def __init__(
        self,
        seed: int,
        profile: Profile,
        database: FuzzedDatabase,
        replied: Callable[[bytes], None],
    ) -> None:
        self.loop = VirtualLoop(seed)
        self.process = Process("front", Machine("front"))
        self.log = Lines()
        database.begin(random.Random(f"queue {seed}") if profile.has_trouble else None)
        random.seed(f"product {seed}")
        clocks.use(self.loop)
        self.wire = Wire(profile.peer, replied, self)
        self.took: Callable[[bytes], None] = lambda _: None  # told of what is brought
        self._coming: deque[bytes | None] = deque()  # None: the client says no more
        settings = settings_of(profile)
        log = MailLog(
            Channel(self.log, loss=lambda count, why: b"lost", tell=self.log.lines.append),
            PostfixForm(with_subject=True),
            in_a_file(hostname="gw.test", name="relaygw"),
        )
        self.service = FrontService(
            settings,
            database.store,
            FrontObserver(log),
            intake=Intake(settings, state_dir=_state_directory()),
            notify=lambda: None,
            flush=lambda _actor, _queue_id: 0,
            look_around=lambda: lambda way: "",
        )
        # as its start does it, but for sockets, and for the maildrop
        self.listener = self.service._activated(settings.listeners[0], max_connections=10)
        self.connection = Connection(self.listener, cast(Any, self.loop))
        self._call(self.connection.connection_made, self.wire)

    def _call(self, work: Callable[..., Any], *arguments: Any) -> None:
        self.loop.at(self.process, 0.0, work, *arguments)

    # --- what a client does

    def hear(self, data: bytes | None) -> None:
        """Bring bytes of the client once the loop gets there; None: it says no more."""
        self._call(self._hear, data)

    def _hear(self, data: bytes | None) -> None:
        self._coming.append(data)
        self._bring()

    def _bring(self) -> None:
        while self._coming and not (self.wire.is_paused or self.wire.is_closed):
            data = self._coming.popleft()
            if data is None:
                self.connection.eof_received()
            else:
                self.took(data)
                self.connection.data_received(data)

    def read_on(self) -> None:
        """Bring what waits."""
        self._call(self._bring)

    def hang_up(self, error: Exception | None) -> None:
        """Let the client be gone."""
        self._call(self._lose, error)

    def fill(self, is_full: bool) -> None:
        """Let the client read no replies, or read on."""
        if is_full == self.wire.is_full:
            return
        self.wire.is_full = is_full
        change = self.connection.pause_writing if is_full else self.connection.resume_writing
        self._call(change)

    def wait(self, seconds: float) -> None:
        """Let time pass, as the front's clock would tell its sessions."""
        self.loop.now_s += seconds
        self._call(self._check_time)

    def settle(self) -> None:
        """Run until nothing more happens."""
        self.loop.run_until(lambda: False)

    def _check_time(self) -> None:
        if not self.wire.is_closed:
            self.connection.check_time(self.loop.now_s)

    def _lose(self, error: Exception | None) -> None:
        if not self.wire.is_closed:
            self.wire.is_closed = True
            self.connection.connection_lost(error)

    def closed(self) -> None:
        """Tell the connection that its transport is closed."""
        self._call(self.connection.connection_lost, None)

    # --- what is left of it

    def bounds(self) -> str | None:
        """Return what is larger than it may be."""
        held_bytes = len(self.connection._said)
        if held_bytes > _MOST_HELD_BYTES:
            return f"{held_bytes} bytes of commands are held"
        return None

    def leftovers(self) -> list[str]:
        """Return what is still there, or went wrong, once the client is gone."""
        found = [f"in the loop: {error}" for error in self.loop.errors]
        for task in self.loop._tasks:
            if not task.done():
                found.append(f"a task does not end: {task.get_coro()}")
            elif not task.cancelled() and task.exception() is not None:
                found.append(f"a task raised {task.exception()!r}")
        found += [f"the log says {line!r}" for line in self.log.lines if _is_trouble(line)]
        if self.listener.connections or self.listener.clients.total:
            found.append("a connection is still counted")
        if self.service.committer._pending_bytes:
            found.append("bytes of the committer are still counted")
        return found

    def close(self) -> None:
        """Let go of it."""
        self.loop.let_go()
        clocks.use(None)


def _is_trouble(line: str) -> bool:
    return "error: " in line.partition("]: ")[2][:8] or "Traceback" in line
