"""Signals of the supervisor, which come through a pipe, and what its children do with them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

from relaygw.service_file import EARLY_SIGNALS

_OF_THE_GATEWAY = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2}
_OF_NOBODY = {
    *(signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO, signal.SIGPWR),
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
}
"""What would end a process that has no handler, and means nothing here; its children keep that."""
_OF_ALL = {*_OF_THE_GATEWAY, signal.SIGUSR1}


class Signals:
    """Readable while a signal waits."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._read

    def catch(self) -> None:
        """Take what the supervisor acts on from now on."""
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in _OF_ALL | _OF_NOBODY:
            signal.signal(number, lambda *_: None)  # the pipe carries them
        signal.pthread_sigmask(signal.SIG_UNBLOCK, EARLY_SIGNALS)

    def take(self) -> list[int]:
        """Return signals that wait, each kind once; an end before a reload, which takes time."""
        return sorted(set(os.read(self._read, 4096)), key=lambda number: number == signal.SIGHUP)

    def put_back(self, numbers: Iterable[int]) -> None:
        """Let signals wait again."""
        os.write(self._write, bytes(numbers))

    def fork(self) -> int:
        """Fork a role, which never has the supervisor's handlers; return what `os.fork` does."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_ALL)
        try:
            pid = os.fork()
        except OSError:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            raise
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for number in _OF_THE_GATEWAY - {signal.SIGHUP}:
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            # USR1 stays blocked until the role can open its log again
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_THE_GATEWAY)
        else:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid
