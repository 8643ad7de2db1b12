"""Work in a process of its own, that may fail, hang and litter."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, TypeVar

from tests.once import fast_place

_LOOK_AGAIN_S = 0.02
_PR_SET_PDEATHSIG = 1
_STDERR = os.dup(2)  # of all forks, and theirs

_Item = TypeVar("_Item")


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Lend a directory, in memory if there is some; a short name, for sockets in it."""
    with tempfile.TemporaryDirectory(
        prefix="m", dir=fast_place(), ignore_cleanup_errors=True
    ) as directory:
        Path(directory).chmod(0o755)  # a server of PostgreSQL in it has a user of its own
        yield Path(directory)


def forked(work: Callable[[], int], scratch: Path) -> int:
    """Begin work in a process of its own, silently, its files in `scratch`; return its id.

    The process leads a group with what it starts, and ends with the one that forked it. Its exit
    code is what `work` returns; 70: it raised something, and that is said.
    """
    pid = os.fork()
    if pid:
        return pid
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.tempdir = str(scratch)
    code = 70
    try:
        code = work()
    except BaseException:
        os.write(_STDERR, traceback.format_exc().encode())
    finally:
        os._exit(code)


def ended(pid: int, patience_s: float) -> int:
    """Return the exit code of a forked process; it is killed with its group when time is up."""
    deadline_s = time.monotonic() + patience_s
    while time.monotonic() < deadline_s:
        is_over, status = os.waitpid(pid, os.WNOHANG)
        if is_over:
            _kill_group(pid)  # what it left behind
            return os.waitstatus_to_exitcode(status)
        time.sleep(_LOOK_AGAIN_S)
    _kill_group(pid)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def shared_out(
    jobs: int, work: Callable[[_Item], object], items: Sequence[_Item], patience_s: float
) -> Iterator[Any]:
    """Yield what `work` returns for each item, in order; so many forks do it, by turns.

    It has to be of JSON. A fork that dies tells nothing more: then this ends early.
    """
    jobs = max(1, min(jobs, len(items)))
    with contextlib.ExitStack() as stack:
        told = []
        for number in range(jobs):
            reading, writing = os.pipe()

            def run(number: int = number, writing: int = writing) -> int:
                with os.fdopen(writing, "w") as results:
                    for item in items[number::jobs]:
                        print(json.dumps(work(item)), file=results, flush=True)
                return 0

            pid = forked(run, stack.enter_context(scratch()))
            stack.callback(ended, pid, patience_s)
            os.close(writing)
            told.append(stack.enter_context(os.fdopen(reading)))
        for one, _ in zip(cycle(told), items, strict=False):
            if not (line := one.readline()):
                return
            yield json.loads(line)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
