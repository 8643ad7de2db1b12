"""Empty queues with the schema of this version, each a copy of one that was migrated once."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psycopg

from relaygw.store import migrate
from tests.postgres import PostgresServer

_TEMPLATE = "relaygw_template"
_ONE_MIGRATES = threading.Lock()  # alembic keeps what it works on in one place
_END_OTHERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type LIKE 'client%'
"""
_TABLES = """
    SELECT tablename FROM pg_tables
    WHERE schemaname = 'public' AND tablename <> 'alembic_version'
"""
_COUNTERS = "SELECT sequencename FROM pg_sequences WHERE schemaname = 'public'"


def make_queue(url: str) -> None:
    """Put an empty queue at a URL, unless one is there, as `migrate.upgrade` would."""
    if url.startswith("postgresql:"):
        _copy_database(url)
        return
    path = Path(url.removeprefix("sqlite:///"))
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _ONE_MIGRATES:
            template = _template_file()
        shutil.copy(template, path)


@cache
def _template_file() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="relaygw-queue-"))
    atexit.register(shutil.rmtree, directory)
    path = directory / "queue.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


def _copy_database(url: str) -> None:
    with psycopg.connect(url) as connection:
        if connection.execute("SELECT to_regclass('alembic_version')").fetchone() != (None,):
            return
    server, _, name = url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
    _create_copy(server, name)


def new_queue(server: PostgresServer, options: str = "") -> str:
    """Create a database with an empty queue; return its URL."""
    address, _, name = server.new_url().rpartition("/")
    _create_copy(address, name, options)
    return f"{address}/{name}"


def _create_copy(server: str, name: str, options: str = "") -> None:
    with _ONE_MIGRATES:
        _make_template(server)
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} {options}".encode())


@cache
def _make_template(server: str) -> None:
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {_TEMPLATE}".encode())
        migrate.upgrade(f"{server}/{_TEMPLATE}")
        # nobody, not even the server's own vacuum, may be connected to what is copied
        connection.execute(f"ALTER DATABASE {_TEMPLATE} ALLOW_CONNECTIONS false".encode())


class EmptyQueues:
    """Queues of a PostgreSQL server, each lent to one test after another.

    To delete all rows takes a twentieth of the time of a new database. A test that changes more
    than rows has to take a database of its own.
    """

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._free: list[str] = []

    @contextmanager
    def lend(self) -> Iterator[str]:
        """Lend the URL of an empty queue for the length of a with block."""
        if not self._free:
            self._free.append(new_queue(self._server))
        url = self._free.pop()
        yield url
        _empty(url)
        self._free.append(url)


def _empty(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute(_END_OTHERS).fetchall():
            pass
        tables, counters = (
            [name for (name,) in connection.execute(names)] for names in (_TABLES, _COUNTERS)
        )
        # foreign keys are not looked at
        statements = ["BEGIN", "SET LOCAL session_replication_role = replica"]
        statements += [f"DELETE FROM {name}" for name in tables]
        statements += [f"ALTER SEQUENCE {name} RESTART" for name in counters]
        connection.execute("; ".join([*statements, "COMMIT"]).encode())
