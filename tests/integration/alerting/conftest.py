"""A store on every database, without any instance."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relaygw.store.store import Store, open_store


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = open_store(url)
    yield store
    store.close()
