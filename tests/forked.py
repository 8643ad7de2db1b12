"""`relaygw` as a process of its own, without the second that a start costs.

    with RelaygwProcess(["--config", config, "serve"], stderr=subprocess.PIPE) as gateway: ...
    done = run_relaygw(["queue", "list"], capture_output=True, text=True)

Both take what `subprocess` takes. A process is forked from an image that has loaded the code
(`tests.fork_server`), one such image for all that run tests. What is about a start itself, or
needs another program around it, starts `python -m relaygw`.
"""

from __future__ import annotations

import atexit
import inspect
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests import once

_EXECUTE = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]
_INTERPRETER_READS = ("PYTHON", "LC_", "LANG", "LD_")
_PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
_MAY_DIFFER = ("PYTHONUNBUFFERED",)
_BEFORE_A_START = {
    "preexec_fn": None,
    "pass_fds": (),
    "gid": None,
    "gids": None,
    "uid": None,
    "umask": -1,
}
"""Parameters of subprocess and their usual values: with others a process is started."""


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_INTERPRETER_READS) and name not in _MAY_DIFFER
    }


_AT_START = _read_at_start(os.environ)


def image_address() -> Path:
    """Return where the image is asked for processes; it is started for the first who asks."""
    return once.made("image", _start_image)


def _start_image(address: Path) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        open(once.lifeline(), "rb") as lifeline,
    ):
        listener.bind(str(address))
        listener.listen()
        subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server", str(listener.fileno())],
            cwd=Path(__file__).parents[1],
            pass_fds=[listener.fileno()],
            start_new_session=True,
            stdin=lifeline,
        ).returncode = 0  # it outlives who has started it


class _Image:
    """The process that has loaded the code, started when the first test asks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: socket.socket | None = None

    def fork(self, asked: dict[str, Any], descriptors: Sequence[int]) -> int:
        """Fork a process with these streams; the last descriptor gets its wait status."""
        with self._lock:
            if self._requests is None:
                self._requests = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                self._requests.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
                self._requests.connect(str(image_address()))
                atexit.register(self._end)
            socket.send_fds(self._requests, [json.dumps(asked).encode()], descriptors)
            said = self._requests.recv(32)
        if not said:
            raise RuntimeError("the process that forks relaygw is gone; its stderr shows why")
        return int(said)

    def _end(self) -> None:
        if self._requests is not None:
            self._requests.shutdown(socket.SHUT_WR)
            self._requests.recv(1)  # what it forked has ended


_image = _Image()


class RelaygwProcess(subprocess.Popen[Any]):
    """A Popen of `relaygw WORDS`; its streams with these numbers are `closed`."""

    _ending: int | None = None  # where the wait status of a forked process is read

    def __init__(
        self, words: Sequence[str | Path], *, closed: Sequence[int] = (), **how: Any
    ) -> None:
        self._closed = closed
        super().__init__([str(word) for word in words], **how)

    def _execute_child(self, *given: Any) -> None:
        bound = _EXECUTE.bind(self, *given)
        asked = bound.arguments
        words = list(asked["args"])
        environment = dict(os.environ if asked["env"] is None else asked["env"])
        if not _may_be_forked(asked, environment):
            assert not self._closed, "only what is forked can have closed streams"
            asked["args"] = [sys.executable, "-m", "relaygw", *words]
            super()._execute_child(*bound.args[1:])
            return
        theirs = (asked["p2cread"], asked["c2pwrite"], asked["errwrite"])
        streams = [number if end == -1 else end for number, end in enumerate(theirs)]
        request = {
            "words": words,
            "environment": environment,
            "directory": str(asked["cwd"] or Path.cwd()),
            "new_session": asked["start_new_session"],
            "closed": list(self._closed),
        }
        self._ending, ended = os.pipe2(os.O_CLOEXEC)
        try:
            self.pid = _image.fork(request, [*streams, ended])
            self._child_created = True
        finally:
            os.close(ended)
            self._close_pipe_fds(*(asked[name] for name in _PIPES))

    def _try_wait(self, flags: int) -> tuple[int, int]:
        if self._ending is None:
            return super()._try_wait(flags)
        if flags & os.WNOHANG and not select.select([self._ending], [], [], 0)[0]:
            return 0, 0
        said = os.read(self._ending, 32)
        os.close(self._ending)
        # it ends without a word only if the image was killed
        return self.pid, int(said or signal.SIGKILL)

    def _internal_poll(self, *given: Any, **more: Any) -> int | None:
        if self._ending is None:
            return super()._internal_poll(*given, **more)
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid == self.pid:
                        self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode


def _may_be_forked(asked: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
    return _read_at_start(environment) == _AT_START and all(
        asked[name] == usual for name, usual in _BEFORE_A_START.items()
    )


def run_relaygw(
    words: Sequence[str | Path],
    *,
    input: str | bytes | None = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **how: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run `relaygw WORDS` to its end, as `subprocess.run` does."""
    if input is not None:
        how["stdin"] = subprocess.PIPE
    if capture_output:
        how["stdout"] = how["stderr"] = subprocess.PIPE
    with RelaygwProcess(words, **how) as process:
        try:
            stdout, stderr = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
    if check:
        done.check_returncode()
    return done
