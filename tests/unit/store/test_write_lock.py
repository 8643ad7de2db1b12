"""The write lock: exclusive among processes, given back by a killed one."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
from pathlib import Path

import pytest

from relaygw.store.instances import Lifeline, begun_by, dead_incarnations, forget
from relaygw.store.sqlite import WriteLock


def child_that_holds(directory: Path, *, take: str) -> int:
    """Fork a process that takes a lock, says so, and waits to be killed."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        if take == "lock":
            WriteLock(directory, first_in_line=False).__enter__()
        else:
            Lifeline(directory, take).begin("QUEUEID0001", 2, "main")
        os.write(write, b"x")
        signal.pause()
    os.read(read, 1)
    os.close(read)
    os.close(write)
    return pid


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    pid = child_that_holds(tmp_path, take="lock")
    os.kill(pid, signal.SIGKILL)
    lock = WriteLock(tmp_path, first_in_line=True)
    with lock:  # would wait for ever
        os.waitpid(pid, 0)
    lock.close()


def is_locked(file: Path) -> bool:
    """Tell whether somebody has a file locked, who may be this process."""
    with file.open("rb") as other:
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.mark.parametrize(
    ("first_in_line", "held"), [(True, {"lock"}), (False, {"gate", "lock"})], ids=["front", "other"]
)
def test_only_others_than_the_front_queue_at_the_gate(
    tmp_path: Path, first_in_line: bool, held: set[str]
) -> None:
    lock = WriteLock(tmp_path, first_in_line=first_in_line)
    names = {one.name for one in tmp_path.iterdir()}
    assert names == {"gate", "turnstile", "lock"}
    with lock:
        assert {name for name in names if is_locked(tmp_path / name)} == held
    assert not any(is_locked(tmp_path / name) for name in names)
    lock.close()


def test_what_one_sends_at_once_is_noted_each_by_itself(tmp_path: Path) -> None:
    living = Lifeline(tmp_path, "here")
    slots = [living.begin(f"QUEUEID000{n}", n, "main") for n in range(4)]
    living.end(slots[1])
    living.begin("QUEUEID0009", 9, "other")
    assert sorted(begun_by(tmp_path, "here")) == [
        *((f"QUEUEID000{n}", n, "main") for n in (0, 2, 3)),
        ("QUEUEID0009", 9, "other"),
    ]
    assert stat.S_IMODE((tmp_path / "here").stat().st_mode) == 0o600
    living.release()


def test_the_dead_of_this_host_are_known_and_the_living_are_not(tmp_path: Path) -> None:
    pid = child_that_holds(tmp_path, take="gone")
    living = Lifeline(tmp_path, "here")
    living.end(living.begin("QUEUEID0002", 0, "main"))
    assert begun_by(tmp_path, "here") == []
    assert dead_incarnations(tmp_path) == []
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert dead_incarnations(tmp_path) == ["gone"]
    assert begun_by(tmp_path, "gone") == [("QUEUEID0001", 2, "main")]
    forget(tmp_path, "gone")
    living.release()
    assert dead_incarnations(tmp_path) == []
