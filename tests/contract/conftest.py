"""One store on every database, for the whole suite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from relaygw.mail.clock import clock_ms
from relaygw.store.store import Store, open_store
from tests.builders import instance


@contextmanager
def clock_at(store: Store, at_ms: int) -> Iterator[None]:
    """Have the clock of a queue stand still."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.database, "_now_us", lambda _: at_ms * 1000)
        yield


def purge_before(store: Store, cutoffs: Mapping[str, int], *, limit: int) -> int:
    """Delete what is older than these times."""
    now_ms = clock_ms()
    with clock_at(store, now_ms):
        ages_ms = {kind: now_ms - at_ms for kind, at_ms in cutoffs.items()}
        return store.janitor.purge(ages_ms, limit=limit)


def shed_content(store: Store, before_ms: int) -> bool:
    """Delete a piece of the content of a message finished before a time."""
    with clock_at(store, before_ms):
        return store.janitor.shed_content(0)


def forget_watched(store: Store, before_ms: int) -> bool:
    """Delete what was watched before a time."""
    with clock_at(store, before_ms):
        return store.watch.forget_watched(0)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = open_store(url)
    store.instances.register(instance("one"))
    yield store
    store.close()
