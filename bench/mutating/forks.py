"""Work in a process of its own, that may fail, hang and litter."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.once import fast_place

_LOOK_AGAIN_S = 0.02
_PR_SET_PDEATHSIG = 1
_STDERR = os.dup(2)  # of all forks, and theirs


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


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
