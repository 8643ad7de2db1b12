"""A PostgreSQL server of the tests' own, from Debian's packages, on a socket in a directory.

One a test session, started when the first test asks; each test gets a database of its own. The
server refuses to run as root, so root runs it as the user `postgres`.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from relaygw.store import migrate
from tests import once
from tests.e2e.ports import free_port

_PATIENCE_S = 90.0
TEMPLATE = "relaygw_template"
"""A database of each server with an empty queue, to be copied."""
_WRITE = "COMMENT ON DATABASE postgres IS 'written by a test'"


class PostgresServer:
    """A cluster in a temporary directory; `restart` keeps its data.

    `host` is where it listens, and `inside` are the words of a program that starts it (as the
    right user): in a network namespace, for example.
    """

    def __init__(self, *, host: str = "127.0.0.1", inside: Sequence[str] = ()) -> None:
        self.host = host
        self._inside = inside
        self.directory = Path(tempfile.mkdtemp(prefix="relaygw-pg-", dir=once.fast_place()))
        self.port = free_port()
        self._user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        if os.geteuid() == 0:
            shutil.chown(self.directory, self._user)
        self.directory.chmod(0o755)
        self.data = self.directory / "data"
        self._fill(str(self.data))
        self._process: subprocess.Popen[bytes] | None = None

    def _fill(self, data: str) -> None:
        new = once.made("cluster", _make_cluster)
        subprocess.run(["cp", "-a", new, data], check=True)

    def url(self, database: str) -> str:
        """Return the URL of a database of this server."""
        return f"postgresql://relaygw@{self.host}:{self.port}/{database}"

    def start(self, **settings: str) -> None:
        """Start the server and wait until it answers."""
        given = {
            "port": str(self.port),
            "listen_addresses": self.host,
            "unix_socket_directories": str(self.directory),
            "max_connections": "200",
            "timezone": "UTC",
            **settings,
        }
        options = [part for name, value in given.items() for part in ("-c", f"{name}={value}")]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._inside, _program("postgres"), "-D", str(self.data), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._user if os.geteuid() == 0 and not self._inside else None,
                cwd="/",
            )
        deadline_s = time.monotonic() + _PATIENCE_S
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline_s or self._process.poll() is not None:
                    raise
                time.sleep(0.05)

    def stop(self, *, immediately: bool = False) -> None:
        """Stop the server: cleanly, or as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT if immediately else signal.SIGINT)
            self._process.wait(_PATIENCE_S)
            self._process = None

    def restart(self, *, immediately: bool) -> None:
        """Stop and start: cleanly, or as after a crash."""
        self.stop(immediately=immediately)
        self.start()

    def kill(self) -> None:
        """SIGKILL every process of the server."""
        if self._process is not None:
            self.signal_all(signal.SIGKILL)
            self._process.wait(_PATIENCE_S)
            self._process = None

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to every process of the server."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for process in (pid, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def move_data(self, place: Path) -> None:
        """Keep the data of a server that does not run at another place."""
        subprocess.run(["cp", "-a", self.data, place], check=True)
        self.data = place

    def execute(self, statement: str, url: str | None = None) -> list[tuple[Any, ...]]:
        """Run a statement as superuser, outside of a transaction; return its rows."""
        with psycopg.connect(url or self.url("postgres"), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def set(self, name: str, value: str) -> None:
        """Change a setting of the running server."""
        self.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self.execute("SELECT pg_reload_conf()")

    @contextmanager
    def commits_wait(self) -> Iterator[None]:
        """Let every COMMIT wait for a standby that is not there, for the length of a with block."""
        with ThreadPoolExecutor(max_workers=1) as aside:
            self.set("synchronous_standby_names", "nobody")
            try:
                # the setting is in force once a COMMIT waits: the reload takes its time
                while not self._waits(written := aside.submit(self.execute, _WRITE)):
                    written.result()
                yield
            finally:
                self.set("synchronous_standby_names", "")

    def _waits(self, written: Future[list[tuple[Any, ...]]]) -> bool:
        """Return whether a COMMIT waits for a standby; False once `written` has not."""
        while not written.done():
            if self.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"):
                return True
        return False

    def create_database(self, options: str = "") -> str:
        """Create a database and return its URL."""
        url = self.new_url()
        self.execute(f"CREATE DATABASE {url.rpartition('/')[2]} {options}")
        return url

    def new_url(self) -> str:
        """Return the URL of a database that is not there."""
        return self.url(f"q{secrets.token_hex(6)}")

    def drop_database(self, url: str) -> None:
        """Drop a database, whoever is connected to it."""
        self.execute(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def remove(self) -> None:
        """Stop the server and delete its data."""
        self.stop(immediately=True)
        shutil.rmtree(self.directory, ignore_errors=True)


class _NewServer(PostgresServer):
    """A server of a cluster that is not a copy."""

    def _fill(self, data: str) -> None:
        words = ["-D", data, "-A", "trust", "-U", "relaygw", "-E", "UTF8", "--no-sync"]
        _run(self._user, "initdb", *words)
        with Path(data, "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet trust\n")


def _make_cluster(place: Path) -> None:
    """Make a cluster with a queue in it: to copy them takes a tenth of the time."""
    server = _NewServer()
    try:
        server.start()
        server.execute(f"CREATE DATABASE {TEMPLATE}")
        migrate.upgrade(server.url(TEMPLATE))
        # nobody, not even the server's own vacuum, may be connected to what is copied
        server.execute(f"ALTER DATABASE {TEMPLATE} ALLOW_CONNECTIONS false")
        server.stop()
        server.data.rename(place)
    finally:
        server.remove()


def _run(user: str, program: str, *arguments: str) -> None:
    subprocess.run(
        [_program(program), *arguments],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        user=user if os.geteuid() == 0 else None,
        cwd="/",
    )


def _program(name: str) -> str:
    """Return the path of a server program; Debian keeps them out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    path = str(found[-1]) if found else shutil.which(name)
    if path is None:
        raise FileNotFoundError(f"{name}: install the Debian package postgresql")
    return path


@contextmanager
def running_server(**settings: str) -> Iterator[PostgresServer]:
    """Run a server, with these settings, for the length of a with block."""
    server = PostgresServer()
    try:
        server.start(**settings)
        yield server
    finally:
        server.remove()
