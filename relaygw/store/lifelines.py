"""Lifelines: a lock file per incarnation that says whether it still lives.

The kernel drops the lock when the process dies, however it dies, so that a successor on
the same host frees the dead one's leases at once instead of waiting for its heartbeat to
grow old. A file that another process holds the lock of is alive.

The file also names the deliveries that are being sent, in slots of fixed size. It is not
synced: it is for the death of a process, and what a process wrote the kernel keeps.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Protocol

Begun = tuple[str, int, str]
"""A delivery that was being sent, and the provider: queue id, delivery number, name."""

_SLOT_BYTES = 128
_EMPTY_SLOT = b" " * (_SLOT_BYTES - 1) + b"\n"


class InFlight(Protocol):
    """Remembers, beyond the death of the process, which deliveries are being sent."""

    def begin(self, queue_id: str, delivery_no: int, provider: str) -> int:
        """Note that a delivery is being sent by a provider; return the slot to end it by."""

    def end(self, slot: int) -> None:
        """Note that the outcome of a delivery is durable."""


def lifeline_directory(state_dir: Path) -> Path:
    """Return the directory of the lock files."""
    return state_dir / "instances"


class Lifeline:
    """Held for the life of one incarnation."""

    def __init__(self, directory: Path, incarnation: str) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = directory / incarnation
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self._free_slots: list[int] = []
        self._slots = 0

    def begin(self, queue_id: str, delivery_no: int, provider: str) -> int:
        """Note that a delivery is being sent by a provider; return the slot to end it by."""
        if self._free_slots:
            slot = self._free_slots.pop()
        else:
            slot, self._slots = self._slots, self._slots + 1
        record = f"{queue_id} {delivery_no} {provider}".ljust(_SLOT_BYTES - 1) + "\n"
        os.pwrite(self._descriptor, record.encode("ascii"), slot * _SLOT_BYTES)
        return slot

    def end(self, slot: int) -> None:
        """Note that the outcome of a delivery is durable."""
        os.pwrite(self._descriptor, _EMPTY_SLOT, slot * _SLOT_BYTES)
        self._free_slots.append(slot)

    def release(self) -> None:
        """End the incarnation: nobody needs to bury it."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        os.close(self._descriptor)


def dead_incarnations(directory: Path) -> list[str]:
    """Return the incarnations of this host that died without a word."""
    dead = []
    for path in sorted(directory.glob("*")):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            dead.append(path.name)
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)
    return dead


def begun_by(directory: Path, incarnation: str) -> list[Begun]:
    """Return the deliveries that an incarnation was sending when it died, and by whom."""
    try:
        lines = (directory / incarnation).read_text("ascii").splitlines()
    except FileNotFoundError:
        return []
    records = [line.split() for line in lines]
    return [(one[0], int(one[1]), one[2]) for one in records if len(one) == 3]


def forget(directory: Path, incarnation: str) -> None:
    """Remove the lock file of a buried incarnation."""
    with contextlib.suppress(FileNotFoundError):
        (directory / incarnation).unlink()
