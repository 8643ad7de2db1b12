"""One store on every database, for the whole suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.store import migrate
from relaygw.store.postgres import PostgresStore
from relaygw.store.protocol import Instance, Store
from relaygw.store.sql import SqlStore
from relaygw.store.sqlite import SqliteStore


def instance(incarnation: str, role: str = "delivery") -> Instance:
    return Instance(
        incarnation=incarnation, name="gw", role=role, pid=1, version="1", fingerprint="f"
    )


def open_store(url: str, *, keep_content: bool = False) -> SqlStore:
    if url.startswith("postgresql:"):
        return PostgresStore(url, keep_content=keep_content)
    return SqliteStore(url, keep_content=keep_content)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/queue.db"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    migrate.upgrade(url)
    return url


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = open_store(url)
    store.register(instance("one"))
    yield store
    store.close()
