"""One role of a gateway, or one call of sendmail, in a process that waits for a word to begin.

It is forked from a process that has loaded the code: what is counted in it from that word on are
calls of the gateway, not of the interpreter.
"""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import relaygw.roles.delivery
import relaygw.roles.front
from relaygw.observe.maillog import open_log
from relaygw.observe.metrics import open_run_files
from relaygw.roles.process import RoleContext, preload, run_role
from relaygw.roles.sockets import ListeningSockets
from relaygw.sendmail import main as sendmail
from relaygw.settings.load import load_settings
from tests.integration.loyal_worker import hurry
from tests.processes import PROCESSES

PATIENCE_S = 60.0
LOADED = (relaygw.roles.delivery, relaygw.roles.front)
_WORD = b"begin"


def run(role: str, config: Path, ready: Connection) -> None:
    """Become a role of a configuration; ends as a role does."""
    hurry()
    loaded = load_settings(config=config, environ={})
    log = open_log(loaded.settings.log, hostname=loaded.settings.hostname)
    metrics = open_run_files(loaded.state_dir, log)
    sockets = ListeningSockets((role,))
    sockets.open(loaded.settings)
    preload((role,), loaded.settings)
    lifeline, _alive = os.pipe()
    context = RoleContext(
        loaded=loaded,
        sockets=sockets.keep_only(role, loaded.settings),
        lifeline=lifeline,
        log=log,
        metrics=metrics.directory if metrics is not None else None,
    )
    _wait(ready)
    exit_code = os.EX_SOFTWARE
    try:
        exit_code = run_role(role, context)
    except BaseException as error:
        log.note("master", f"fatal: {role}: {type(error).__name__}: {error}")
    finally:
        log.channel.close()
        os._exit(exit_code)


def call_sendmail(words: list[str], message: Path, maildrop: Path, ready: Connection) -> None:
    """Hand a message to sendmail, as a program does."""
    os.environ["RELAYGW_MAILDROP"] = str(maildrop)
    sys.argv = ["sendmail", *words]
    os.dup2(os.open(message, os.O_RDONLY), 0)
    _wait(ready)
    sendmail("/nowhere", str(maildrop))


def _wait(ready: Connection) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    ready.send_bytes(_WORD)
    ready.recv_bytes()


class WaitingProcess:
    """A process that is ready to begin; left, it is killed."""

    def __init__(self, target: object, *arguments: object) -> None:
        self._ended: int | None = None
        self._ready, its = PROCESSES.Pipe()
        self._process = PROCESSES.Process(target=target, args=(*arguments, its))  # type: ignore[arg-type]
        self._process.start()
        its.close()
        self._ready.recv_bytes()

    @property
    def pid(self) -> int:
        """Its id."""
        assert self._process.pid is not None
        return self._process.pid

    def begin(self) -> None:
        """Let it go."""
        self._ready.send_bytes(_WORD)

    def exit_code(self) -> int | None:
        """Return how it ended, negative for a signal; None while it runs."""
        return self._process.exitcode if self._ended is None else self._ended

    def wait(self) -> int:
        """Wait for its end; return how it ended."""
        self._process.join(PATIENCE_S)
        assert self._process.exitcode is not None, "it does not end"
        return self._process.exitcode

    def stop(self) -> int:
        """Send TERM, wait, return the exit code."""
        self._process.terminate()
        return self.wait()

    def __enter__(self) -> WaitingProcess:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.kill()
        self._process.join()
        self._ended = self._process.exitcode
        self._process.close()
        self._ready.close()
