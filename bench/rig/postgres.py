"""A PostgreSQL server for a benchmark, from Debian's packages, with its defaults for durability."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from bench.rig.gateway import PATIENCE_S, python
from bench.rig.ports import free_port
from bench.rig.processor_time import tree

_POLL_S = 0.01


class PostgresServer:
    """A server with an empty queue; it keeps its port and its data through every restart.

    It refuses to run as root, so root runs it as the user `postgres`. Entered, it serves and has
    the schema; left, it is gone and so are its data, unless it was told in which `directory` they
    are. `settings` are added to its defaults.
    """

    def __init__(self, directory: Path | None = None, **settings: str) -> None:
        self._user = "postgres" if os.geteuid() == 0 else None
        self.port = free_port()
        self.url = self.url_of("postgres")
        self._is_kept = directory is not None
        self._directory = directory or Path(tempfile.mkdtemp(prefix="relaygw-bench-pg-"))
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process that started all others."""
        assert self._process is not None
        return self._process.pid

    def url_of(self, database: str) -> str:
        """Return the URL of one of its databases."""
        return f"postgresql://relaygw@127.0.0.1:{self.port}/{database}"

    def restart(self, *, immediately: bool, away_s: float = 0.0) -> tuple[float, float]:
        """Stop it cleanly, or as a crash would, and start it again, at once or after a time.

        Returns when it was told to stop, and when it answered again (CLOCK_MONOTONIC).
        """
        stopped_s = time.monotonic()
        self._stop(signal.SIGQUIT if immediately else signal.SIGINT)
        time.sleep(away_s)
        return stopped_s, self._start()

    def _start(self) -> float:
        options = (
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self._directory}",
            *(f"{name}={value}" for name, value in self._settings.items()),
        )
        self._process = subprocess.Popen(
            [
                *(_program("postgres"), "-D", str(self._directory / "data")),
                *(part for option in options for part in ("-c", option)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=self._user,
            cwd="/",
        )
        deadline_s = time.monotonic() + PATIENCE_S
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError("PostgreSQL does not answer")
            time.sleep(_POLL_S)
        return time.monotonic()

    def answers(self) -> bool:
        """Return whether it takes connections."""
        command = [_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def _stop(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def kill(self) -> None:
        """SIGKILL all of its processes; it is not started again."""
        assert self._process is not None
        for pid in tree(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    @contextmanager
    def started(self) -> Iterator[None]:
        """Run it on the data that it has, for the length of a with block."""
        try:
            self._start()
            yield
        finally:
            self._stop(signal.SIGQUIT)

    def execute(self, statement: str) -> None:
        """Run a statement; raises CalledProcessError."""
        self._run("psql", "-X", "-q", "-d", self.url, "-c", statement)

    def postmaster_started(self) -> str:
        """Return when it was started, as it says itself."""
        query = "SELECT pg_postmaster_start_time()"
        ((at,),) = rows_of(self.url, query, patience_s=PATIENCE_S)
        return at

    def amcheck(self) -> list[str]:
        """Return what is wrong with its tables and indexes."""
        try:
            here = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "relaygw", "-d", "postgres")
            self._run("pg_amcheck", "--install-missing", *here)
        except subprocess.CalledProcessError as error:
            return [f"pg_amcheck: {error.stdout}{error.stderr}"]
        return []

    def _run(self, name: str, *words: str, user: str | None = None) -> None:
        subprocess.run(
            [_program(name), *words],
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            user=user,
            cwd="/",
        )

    def __enter__(self) -> Self:
        self._directory.mkdir(exist_ok=True)
        self._directory.chmod(0o755)
        if self._user is not None:
            shutil.chown(self._directory, self._user)
        try:
            self._fill(str(self._directory / "data"))
            self._start()
            self._settle()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _fill(self, data: str) -> None:
        """Make its data."""
        words = ("-D", data, "-A", "trust", "-U", "relaygw", "-E", "UTF8")
        self._run("initdb", *words, user=self._user)

    def _settle(self) -> None:
        """Do what is left once it answers."""
        _make_schema(self.url)

    def __exit__(self, *_exc: object) -> None:
        self._stop(signal.SIGQUIT)
        if not self._is_kept:
            shutil.rmtree(self._directory, ignore_errors=True)


@contextmanager
def postgres_queue() -> Iterator[str]:
    """Run a server with an empty queue for the length of a with block; yields its URL."""
    with PostgresServer() as server:
        yield server.url


def rows_of(url: str, query: str, *, patience_s: float) -> list[list[str]]:
    """Return what a query finds, as text, a null as an empty one."""
    done = subprocess.run(
        [_program("psql"), "-X", "-q", "--csv", "-t", "-d", url, "-c", query],
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=patience_s,
    )
    return list(csv.reader(done.stdout.splitlines(keepends=True)))


def _program(name: str) -> str:
    """Return the path of a program of Debian's packages, which keep servers' out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    path = str(found[-1]) if found else shutil.which(name)
    if path is None:
        raise RuntimeError(f"{name} is not installed; bring the Debian package postgresql")
    return path


def _make_schema(url: str) -> None:
    environment = {
        **os.environ,
        "RELAYGW__MODE": "sandbox",
        "RELAYGW__QUEUE__URL": url,
        "RELAYGW__QUEUE__ALLOW_UNSAFE": "true",  # a control may be just that
        "RELAYGW_CONFIG": "",
    }
    command = [python(), "-m", "relaygw", "db", "upgrade"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the schema was not made: {done.stderr.strip()}")
