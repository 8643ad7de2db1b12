"""Where a message came from and its DSN wishes are stored, shown and claimed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.mail.envelope import NewRecipient, Source
from relaygw.store.selection import Selection
from relaygw.store.store import Store, open_store
from tests.builders import NOW_MS, accepted, instance
from tests.queues import make_queue

SOURCE = Source(
    client="10.1.2.3",
    helo="web1",
    user="shop",
    listener="0.0.0.0:25",
    uid=33,
    script="60:a.php",
    cwd="/srv/shop",
    host="web1.shop.test",
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    url = f"sqlite:///{tmp_path}/queue.db"
    make_queue(url)
    store = open_store(url)
    store.instances.register(instance("one", fingerprint="0"))
    yield store
    store.close()


def test_the_whole_source_is_kept(store: Store) -> None:
    store.intake.accept_batch([accepted("b@cust.test", source=SOURCE)])
    (entry,) = store.queue.search(Selection(), limit=2)
    assert entry.source == SOURCE


def test_a_claim_has_what_a_provider_is_told(store: Store) -> None:
    plain = accepted("b@cust.test", source=Source())
    store.intake.accept_batch([plain])
    recipients = (
        NewRecipient(address="b@cust.test", dsn_notify="NEVER"),
        NewRecipient(address="c@cust.test"),
    )
    wishing = accepted(*recipients, source=SOURCE, dsn_ret="HDRS", dsn_envid="o 1")
    store.intake.accept_batch([wishing])
    claimed = {
        one.queue_id: one
        for one in store.leases.claim("default", limit=9, incarnation="one", now_ms=NOW_MS)
    }
    one = claimed[plain.queue_id]
    assert (one.source, one.dsn_ret, one.dsn_envid) == (Source(), None, None)
    one = claimed[wishing.queue_id]
    told = ("client", "user", "uid", "script", "host")
    assert [getattr(one.source, name) for name in told] == [getattr(SOURCE, n) for n in told]
    assert (one.dsn_ret, one.dsn_envid) == ("HDRS", "o 1")
    assert [who.dsn_notify for who in one.recipients] == ["NEVER", None]
