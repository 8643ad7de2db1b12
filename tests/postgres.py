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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.e2e.ports import free_port

_PATIENCE_S = 30.0


class PostgresServer:
    """A cluster in a temporary directory; `restart` keeps its data."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="relaygw-pg-", dir="/tmp"))
        self.port = free_port()
        self._user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        if os.geteuid() == 0:
            shutil.chown(self.directory, self._user)
        self.directory.chmod(0o755)
        self._data = self.directory / "data"
        self._run("initdb", "-D", str(self._data), "-A", "trust", "-U", "relaygw", "-E", "UTF8")
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str) -> str:
        """Return the URL of a database of this server."""
        return f"postgresql://relaygw@127.0.0.1:{self.port}/{database}"

    def start(self, **settings: str) -> None:
        """Start the server and wait until it answers."""
        given = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.directory),
            "max_connections": "200",
            "timezone": "UTC",
            **settings,
        }
        options = [part for name, value in given.items() for part in ("-c", f"{name}={value}")]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_program("postgres"), "-D", str(self._data), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._user if os.geteuid() == 0 else None,
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

    def create_database(self) -> str:
        """Create a database and return its URL."""
        name = f"q{secrets.token_hex(6)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Drop a database, whoever is connected to it."""
        name = url.rpartition("/")[2]
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def remove(self) -> None:
        """Stop the server and delete its data."""
        self.stop(immediately=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [_program(program), *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            user=self._user if os.geteuid() == 0 else None,
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
def running_server() -> Iterator[PostgresServer]:
    """Run a server for the length of a with block."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()
