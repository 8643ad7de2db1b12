"""An empty queue for parts of a delivery worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.store.store import Store, open_store
from tests.queues import make_queue


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    url = f"sqlite:///{tmp_path}/queue.db"
    make_queue(url)
    store = open_store(url)
    yield store
    store.close()
