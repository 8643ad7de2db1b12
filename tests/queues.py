"""Empty queues with the schema of this version, each a copy of one that was migrated once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar

import psycopg

from relaygw.store import migrate
from relaygw.store.store import Store, open_store
from tests import once
from tests.builders import instance
from tests.postgres import TEMPLATE, PostgresServer

_END_OTHERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type LIKE 'client%'
"""
_TABLES = """
    SELECT tablename FROM pg_tables
    WHERE schemaname = 'public' AND tablename <> 'alembic_version'
"""
_COUNTERS = "SELECT sequencename FROM pg_sequences WHERE schemaname = 'public'"

_OpenStore = TypeVar("_OpenStore", bound=Store)


def make_queue(url: str) -> None:
    """Put an empty queue at a URL, unless one is there, as `migrate.upgrade` would."""
    if url.startswith("postgresql:"):
        _copy_database(url)
        return
    path = Path(url.removeprefix("sqlite:///"))
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy(_template_file(), path)


@cache
def _template_file() -> Path:
    return once.made("queue.db", lambda place: migrate.upgrade(f"sqlite:///{place}"))


def queue_with_worker(
    directory: Path, opening: Callable[[str], _OpenStore] = open_store, worker: str = "w"
) -> _OpenStore:
    """Open an empty queue in a directory, with a worker registered."""
    url = f"sqlite:///{directory}/queue.db"
    make_queue(url)
    store = opening(url)
    store.instances.register(instance(worker))
    return store


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
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        # to copy files takes half of the time that it takes to write them to the log
        how = f"TEMPLATE {TEMPLATE} STRATEGY FILE_COPY {options}"
        connection.execute(f"CREATE DATABASE {name} {how}".encode())


class EmptyQueues:
    """Queues of a PostgreSQL server, each lent to one test after another.

    To delete all rows takes a twentieth of the time of a new database. A test that changes more
    than rows has to take a database of its own.
    """

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._free: list[_Queue] = []

    @contextmanager
    def lend(self) -> Iterator[str]:
        """Lend the URL of an empty queue for the length of a with block."""
        queue = self._free.pop() if self._free else _Queue(new_queue(self._server))
        yield queue.url
        queue.empty()
        self._free.append(queue)

    def close(self) -> None:
        for queue in self._free:
            queue.close()


class _Queue:
    """An empty queue, and what empties it again: its connection stays, to open one costs most."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection = psycopg.connect(url, autocommit=True)
        tables, counters = (
            [name for (name,) in self._connection.execute(names)] for names in (_TABLES, _COUNTERS)
        )
        # foreign keys are not looked at
        statements = ["BEGIN", "SET LOCAL session_replication_role = replica"]
        statements += [f"DELETE FROM {name}" for name in tables]
        statements += [f"SELECT setval('{name}', 1, false)" for name in counters]
        self._delete_all = "; ".join([*statements, "COMMIT"]).encode()

    def empty(self) -> None:
        while self._connection.execute(_END_OTHERS).fetchall():
            pass
        self._connection.execute(self._delete_all)

    def close(self) -> None:
        self._connection.close()
