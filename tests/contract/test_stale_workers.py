"""Who may say of another that it is dead, on PostgreSQL: one whose own heartbeats are answered."""

from __future__ import annotations

import types
from collections.abc import Iterator

import pytest

from relaygw.store import instances
from relaygw.store.store import Store, open_store
from tests.builders import instance


@pytest.fixture
def judge(queue_url: str) -> Iterator[Store]:
    store = open_store(queue_url)
    yield store
    store.close()


def test_one_that_has_not_beaten_since_it_registered_buries_nobody(
    judge: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = types.SimpleNamespace(now_s=1000.0)
    for name in ("awake_s", "running_s"):
        monkeypatch.setattr(instances, name, lambda: clock.now_s)
    judge.instances.register(instance("dead"))
    judge.instances.register(instance("own"))
    judge.instances.stale_incarnations(20.0)
    clock.now_s += 25.0
    assert judge.instances.stale_incarnations(20.0) == [], "the database may have been away"
    for _ in range(5):
        judge.instances.heartbeat("own")
        clock.now_s += 5.0
    assert judge.instances.stale_incarnations(20.0) == ["dead"]
