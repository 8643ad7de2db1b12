"""Stores for the listener, on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relaygw.store.store import Store
from tests.integration.events_rig import open_registered


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = open_registered(url)
    yield store
    store.close()
