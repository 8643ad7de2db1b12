"""Any mail server that passes all mail on to one port of this machine, as benchmarks drive it.

A server of your own is a subclass that says how it is set up and started; `bench/adapters` has one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

from bench.rig.ports import free_port
from bench.rig.processor_time import command_of, tree

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0


class Mta(ABC):
    """One server with everything it has in `directory`; entered, it serves; left, it is killed.

    It listens on 127.0.0.1:`smtp_port` and relays what it takes to 127.0.0.1:`relay_port`, in
    plain SMTP over at most 20 connections, tries again within seconds, and syncs as it always
    does. Everything it says goes to `log_path`.
    """

    name: ClassVar[str]
    roles: ClassVar[Mapping[str, str]] = {}
    """The names of processes, as the kernel knows them, by what can be killed alone."""
    speaks_postfix: ClassVar[bool] = False
    """True when its log is in Postfix's grammar, so that faults and ends can be read from it."""

    def __init__(self, directory: Path, relay_port: int = 0) -> None:
        self.directory = directory
        self.relay_port = relay_port
        self.smtp_port = free_port()
        self.log_path = directory / "mail.log"
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def prepare(self) -> None:
        """Write what it needs, before every start."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return what runs it in the foreground."""

    @property
    def spool(self) -> Path:
        """Where each message of its queue lies as a file."""
        return self.directory / "spool"

    def environment(self) -> dict[str, str]:
        """Return what its environment has besides ours."""
        return {}

    def start(self) -> Self:
        """Start it and wait until it serves."""
        if self._process is not None:
            self._process.wait(PATIENCE_S)  # it was killed alone
        self.directory.mkdir(parents=True, exist_ok=True)
        self.prepare()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, **self.environment()},
                start_new_session=True,
            )
        try:
            self._wait_until_it_serves(self._process)
        except BaseException:
            self.kill_all()
            raise
        return self

    def _wait_until_it_serves(self, process: subprocess.Popen[bytes]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not self.greets():
            if process.poll() is not None or time.monotonic() > deadline_s:
                tail = self.log_path.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.name} does not serve; its log ends with:\n{tail}")
            time.sleep(0.01)

    def greets(self) -> bool:
        """Return whether it greets a new connection."""
        try:
            with socket.create_connection(("127.0.0.1", self.smtp_port), timeout=5) as client:
                return client.recv(3) == b"220"
        except OSError:
            return False

    @property
    def pid(self) -> int:
        """The process that started all others."""
        assert self._process is not None
        return self._process.pid

    def pids(self, role: str = "") -> list[int]:
        """Return the processes of one role, or all, the first one first."""
        if not role:
            return tree(self.pid)
        names = self.roles[role].split()
        return [pid for pid in tree(self.pid) if command_of(pid) in names]

    def kill_all(self) -> None:
        """SIGKILL all processes at once."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):  # it ended by itself, all of it
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """Send TERM and wait for the end."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        if self._process is not None:
            self.kill_all()


def load_adapter(where: str) -> type[Mta]:
    """Return the class that `FILE.py:CLASS` names; raises ValueError."""
    path, _, name = where.rpartition(":")
    spec = importlib.util.spec_from_file_location("adapter", path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise ValueError(f"{where}: expected FILE.py:CLASS, the file of an adapter")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, Mta)):
        raise ValueError(f"{where}: {path} has no subclass of Mta of this name")
    return found
