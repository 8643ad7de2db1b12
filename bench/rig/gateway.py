"""The gateway under test: `relaygw serve` with its own configuration, state and log file."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any, ClassVar

from bench.rig.mta import PATIENCE_S, ROOT, Mta
from bench.rig.ports import free_port
from bench.rig.processor_time import processor_s

__all__ = ["PATIENCE_S", "ROOT", "Gateway", "provider", "pss_bytes_of", "python", "use_environment"]


def python() -> str:
    """Return the interpreter that has relaygw: the checkout's environment, else this one."""
    inside = ROOT / ".venv" / "bin" / "python"
    if not os.access(inside, os.X_OK) and importlib.util.find_spec("sqlalchemy") is None:
        raise RuntimeError(
            f"{inside} is not there, or not for this user; run `make .venv/.installed`"
        )
    return str(inside) if inside.exists() else sys.executable


def use_environment() -> None:
    """Start this program anew by the checkout's environment where this Python lacks relaygw."""
    if importlib.util.find_spec("sqlalchemy") is None:
        os.execv(python(), [python(), *sys.argv])


def provider(port: int, **more: Any) -> dict[str, Any]:
    """Return settings of a plain provider on this machine."""
    return {"host": "127.0.0.1", "port": port, "tls": "none", **more}


class Gateway(Mta):
    """One `relaygw serve` with all its roles; its log goes to a file, as a service's does.

    `sections` are merged over a production configuration with one listener and the web pages
    on free loopback ports. `providers` gets a default route to its first entry unless
    `routes` is among the sections. Entered, it serves; left, it is killed.
    """

    name = "relaygw"
    roles: ClassVar = {
        "front": "relaygw-front",
        "delivery": "relaygw-deliver",  # the kernel keeps 15 characters
        "web": "relaygw-web",
    }
    speaks_postfix = True
    is_visited: ClassVar = True
    """Somebody has been at the pages, so that all roles run."""

    def __init__(
        self, directory: Path, *, providers: dict[str, dict[str, Any]], **sections: Any
    ) -> None:
        super().__init__(directory)
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
        self.more_environment: dict[str, str] = {}

    @property
    def queue(self) -> Path | str:
        """Where its queue is: a file of SQLite, or the URL of a PostgreSQL database."""
        url = str(self.settings["queue"]["url"])
        return url if url.startswith("postgresql") else self.database

    @property
    def state_dir(self) -> Path:
        """Where its processes keep what is not in the queue."""
        on_postgres = self.directory / "xdg" / "relaygw"
        return on_postgres if isinstance(self.queue, str) else self.database.parent

    def prepare(self) -> None:
        config = self.directory / "relaygw.yaml"
        config.write_text(json.dumps(self.settings, indent=1))  # JSON is YAML
        config.chmod(0o600)

    def greets(self) -> bool:
        """Return whether it greets, and its pages answer.

        Orphans of a killed supervisor greet and let go of the pages' port before the next has it.
        """
        return super().greets() and (not self.is_visited or self._answers())

    def _answers(self) -> bool:
        url = f"http://{self.settings['web']['bind']}/healthz"
        try:
            urllib.request.urlopen(url, timeout=PATIENCE_S).close()
        except OSError:
            return False
        return True

    def command(self) -> list[str]:
        config = str(self.directory / "relaygw.yaml")
        return [python(), *self.program, "--config", config, "serve"]

    def environment(self) -> dict[str, str]:
        return {"XDG_STATE_HOME": str(self.directory / "xdg"), **self.more_environment}

    def pss_bytes(self) -> int:
        """Return the proportional set size of the supervisor and all roles together."""
        return sum(pss_bytes_of(pid) for pid in self.pids())

    def cpu_s(self) -> float:
        """Return the processor time that the supervisor and all roles have used so far."""
        return processor_s(self.pid)


def pss_bytes_of(pid: int) -> int:
    """Return the proportional set size of one process, 0 when it has ended."""
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
