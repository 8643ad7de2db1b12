"""The write lock: exclusive among processes, given back by a killed one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

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
