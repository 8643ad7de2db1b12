"""One store on every database, for the whole suite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from relaygw.store.instances import Instance
from relaygw.store.store import Store, open_store
from tests.queues import make_queue


def instance(incarnation: str, role: str = "delivery") -> Instance:
    return Instance(
        incarnation=incarnation, name="gw", role=role, pid=1, version="1", fingerprint="f"
    )


@contextmanager
def clock_at(store: Store, at_ms: int) -> Iterator[None]:
    """Have the clock of a queue stand still."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.database, "_now_us", lambda _: at_ms * 1000)
        yield


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        url: str = request.getfixturevalue("queue_url")
        return url
    url = f"sqlite:///{tmp_path}/queue.db"
    make_queue(url)
    return url


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = open_store(url)
    store.instances.register(instance("one"))
    yield store
    store.close()
