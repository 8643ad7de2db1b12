"""Stores for the listener, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.store.store import Store
from tests.integration.events_rig import open_registered
from tests.queues import make_queue


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        found: str = request.getfixturevalue("queue_url")
        return found
    made = f"sqlite:///{tmp_path}/queue.db"
    make_queue(made)
    return made


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = open_registered(url)
    yield store
    store.close()
