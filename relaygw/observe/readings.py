"""What each process reads at the moment, in memory that outlives it: so a killer is known.

Mail that ends whoever reads it would end the successor as well. So a process notes what it is about
to read, which costs the copy of a record, and the supervisor counts what a dead process was
reading. What ended three is set aside: `Slot.reading` raises `EndsReaders` before it is read again.

The file is mapped by all processes of a gateway and stays when all of them are killed; the next
supervisor counts what they were reading. Another version counts anew, since it may read what this
one could not. A process reads in several threads, and whoever kills it, all they read is counted
first. While anything is under suspicion the threads take turns, so that the next death has one
cause, and what is read to its end is under suspicion no longer.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import TypeVar

from relaygw import __version__
from relaygw.errors import EndsReaders

T = TypeVar("T")
MAX_DEATHS = 3
_SUSPECT_S = 86_400  # without another death for so long nothing is under suspicion
_TURN_S = 0.2  # a thread that waits for a disk holds up no event loop for longer
_RECORD_BYTES = 96
_COUNT = struct.Struct(f"<{_RECORD_BYTES}sBQ")  # what, deaths, and when the last was, in s
MAX_COUNTS = 50
_PROCESSES = 64
_HEADER = f"relaygw {__version__} reading\n".encode("ascii").ljust(_RECORD_BYTES - 1)
_STATE_AT = len(_HEADER)
_COUNTS_AT = range(_RECORD_BYTES, _RECORD_BYTES + MAX_COUNTS * _COUNT.size, _COUNT.size)
_SLOTS_AT = _COUNTS_AT.stop
CLEAR, SET_ASIDE, SUSPECTS = range(3)
"""What is counted: nothing; only what is never read; also what may be read again."""


class Reader(IntEnum):
    """The threads that read what came from outside, of all roles."""

    SESSIONS = 0
    MAILDROP = 1
    LARGE = 2  # drops, and headers of any mail
    POSTS = 3
    STORED_POSTS = 4
    INDEX = 5
    NOTICES = 6


_END = _SLOTS_AT + _PROCESSES * len(Reader) * _RECORD_BYTES


class ProcessReadings:
    """What one process reads, a slot for each of its threads."""

    def __init__(self, memory: mmap.mmap, at: int) -> None:
        self._memory, self._at = memory, at
        self._turn = threading.Lock()

    @contextmanager
    def reading(self, reader: Reader, what: str, *, is_last: bool = True) -> Iterator[None]:
        """Note that a thread reads something within a with block, by its name. Raises EndsReaders.

        Not `is_last`: more of it is read after that, so that it stays under suspicion.
        """
        memory, at = self._memory, self._at + reader * _RECORD_BYTES
        record = what.ljust(_RECORD_BYTES)[:_RECORD_BYTES].encode("ascii", "replace")
        if memory[_STATE_AT] and _deaths_of(memory, record) >= MAX_DEATHS:
            raise EndsReaders(f"{what}: reading it ended a process {MAX_DEATHS} times")
        has_turn = memory[_STATE_AT] == SUSPECTS and self._turn.acquire(timeout=_TURN_S)
        memory[at : at + _RECORD_BYTES] = record
        try:
            yield
        finally:
            memory[at] = 0
            if has_turn:
                self._turn.release()
            if is_last and memory[_STATE_AT] == SUSPECTS and (found := _find(memory, record)) > 0:
                memory[found] = 0

    def call(self, reader: Reader, what: str, read: Callable[[], T]) -> T:
        """Return the result of `read`; more of it is read after that."""
        with self.reading(reader, what, is_last=False):
            return read()

    def take(self) -> list[bytes]:
        """Free all slots; return the records that stood there."""
        slots = range(self._at, self._at + len(Reader) * _RECORD_BYTES, _RECORD_BYTES)
        records = [self._memory[at : at + _RECORD_BYTES] for at in slots if self._memory[at]]
        for at in slots:
            self._memory[at] = 0
        return records


def unwatched() -> ProcessReadings:
    """Return where a process notes what it reads that no supervisor looks after."""
    return ProcessReadings(mmap.mmap(-1, _END), _SLOTS_AT)


class Readings:
    """The file of a state directory, as its one supervisor keeps it; `tell` writes to the log."""

    def __init__(self, state_dir: Path, *, tell: Callable[[str], None]) -> None:
        self._memory = _mapped(state_dir / "reading")
        self._tell = tell
        if self._memory[:_STATE_AT] != _HEADER:
            self._memory[:] = _HEADER.ljust(_END, b"\0")
        for process in range(_PROCESSES):  # of a supervisor before this one
            self.end(process, "a process")

    @property
    def state(self) -> int:
        """What is counted, as of the last look: CLEAR, SET_ASIDE or SUSPECTS."""
        return self._memory[_STATE_AT]

    def of(self, process: int) -> ProcessReadings:
        """Return where a process notes what it reads, by its number among those that run."""
        if process >= _PROCESSES:
            return unwatched()
        return ProcessReadings(self._memory, _SLOTS_AT + process * len(Reader) * _RECORD_BYTES)

    def end(self, process: int, who: str, *, has_died: bool = True) -> None:
        """Free the slots of a process that ended; if it died count what it was reading, and tell.

        What it was reading is what may have ended it.
        """
        for record in self.of(process).take():
            if has_died:
                self._count_death(record, who)
        self.settle()

    def settle(self) -> None:
        """Note whether anything is counted still; call it now and then."""
        state = CLEAR
        for at in _COUNTS_AT:
            _, deaths, last_s = _COUNT.unpack_from(self._memory, at)
            if self._memory[at] and deaths >= MAX_DEATHS:
                state = max(state, SET_ASIDE)
            elif self._memory[at] and time.time() - last_s < _SUSPECT_S:
                state = SUSPECTS
            else:
                _COUNT.pack_into(self._memory, at, b"", 0, 0)
        self._memory[_STATE_AT] = state

    def _count_death(self, record: bytes, who: str) -> None:
        memory = self._memory
        at, deaths = _find(memory, record), _deaths_of(memory, record) + 1
        if at < 0:  # in a place that is free, or has the oldest
            at = min(_COUNTS_AT, key=lambda at: _COUNT.unpack_from(memory, at)[2])
        _COUNT.pack_into(memory, at, record, deaths, int(time.time()))
        what = f"{who} ended while it read {record.decode('ascii').strip()}"
        if deaths < MAX_DEATHS:
            self._tell(f"warning: {what} ({deaths} of {MAX_DEATHS} times until that is set aside)")
        else:
            self._tell(f"error: {what}, {deaths} times by now: it is set aside, and not read again")


def _find(memory: mmap.mmap, record: bytes) -> int:
    """Return where it is counted; -1: nowhere."""
    return memory.find(record, _COUNTS_AT[0], _SLOTS_AT)


def _deaths_of(memory: mmap.mmap, record: bytes) -> int:
    return memory[at + _RECORD_BYTES] if (at := _find(memory, record)) > 0 else 0


def _mapped(path: Path) -> mmap.mmap:
    """Return the memory of the file; where there can be none it lasts as long as the supervisor."""
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it stays open, and so locked
        os.posix_fallocate(descriptor, 0, _END)  # on a full volume a hole would be a SIGBUS
        return mmap.mmap(descriptor, _END)
    except OSError:
        return mmap.mmap(-1, _END)
