"""The gateway under test: `relaygw serve` with its own configuration, state and log file."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from bench.rig.processor_time import processor_s, tree

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0


def python() -> str:
    """Return the interpreter that has relaygw: the checkout's environment, else this one."""
    inside = ROOT / ".venv" / "bin" / "python"
    if not os.access(inside, os.X_OK) and importlib.util.find_spec("sqlalchemy") is None:
        raise RuntimeError(
            f"{inside} is not there, or not for this user; run `make .venv/.installed`"
        )
    return str(inside) if inside.exists() else sys.executable


def free_port() -> int:
    """Return a loopback port on which nothing listens now, outside of what clients are given."""
    while True:
        port = random.randint(10_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def provider(port: int, **more: Any) -> dict[str, Any]:
    """Return settings of a plain provider on this machine."""
    return {"host": "127.0.0.1", "port": port, "tls": "none", **more}


class Gateway:
    """One `relaygw serve` with all its roles; its log goes to a file, as a service's does.

    `sections` are merged over a production configuration with one listener and the web pages
    on free loopback ports. `providers` gets a default route to its first entry unless
    `routes` is among the sections. Entered, it serves; left, it is killed.
    """

    def __init__(
        self, directory: Path, *, providers: dict[str, dict[str, Any]], **sections: Any
    ) -> None:
        self.directory = directory
        self.smtp_port = free_port()
        self.log_path = directory / "mail.log"
        self.database = directory / "state" / "queue.db"
        self.settings: dict[str, Any] = {
            "mode": "production",
            "hostname": "gw.bench.test",
            "queue": {"url": f"sqlite:///{self.database}"},
            "listeners": [{"bind": f"127.0.0.1:{self.smtp_port}"}],
            "maildrop": {"path": str(directory / "maildrop")},
            "web": {"bind": f"127.0.0.1:{free_port()}"},
            "providers": providers,
            "routes": [{"name": "default", "providers": [next(iter(providers))]}],
            **sections,
        }
        self.program: tuple[str, ...] = ("-m", "relaygw")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it and wait until it serves."""
        self.directory.mkdir(parents=True, exist_ok=True)
        config = self.directory / "relaygw.yaml"
        config.write_text(json.dumps(self.settings, indent=1))  # JSON is YAML
        config.chmod(0o600)
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [python(), *self.program, "--config", str(config), "serve"],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "XDG_STATE_HOME": str(self.directory / "xdg")},
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
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline_s:
                tail = self.log_path.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"relaygw does not serve; its log ends with:\n{tail}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.smtp_port), timeout=1) as client:
                return client.recv(3) == b"220"
        except OSError:
            return False

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        assert self._process is not None
        return self._process.pid

    def pids(self, role: str = "") -> list[int]:
        """Return the process ids of one role, or of the supervisor and all roles."""
        if not role:
            return tree(self.pid)
        database = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=10)
        with contextlib.closing(database):
            rows = database.execute(
                "SELECT pid FROM instance WHERE role = ? ORDER BY started_at_ms", (role,)
            ).fetchall()
        return [pid for (pid,) in rows if Path(f"/proc/{pid}").exists()]

    def kill_all(self) -> None:
        """SIGKILL the supervisor and every role at once."""
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

    def pss_bytes(self) -> int:
        """Return the proportional set size of the supervisor and all roles together."""
        return sum(pss_bytes_of(pid) for pid in self.pids())

    def cpu_s(self) -> float:
        """Return the processor time that the supervisor and all roles have used so far."""
        return processor_s(self.pid)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        if self._process is not None:
            self.kill_all()


def pss_bytes_of(pid: int) -> int:
    """Return the proportional set size of one process, 0 when it has ended."""
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
