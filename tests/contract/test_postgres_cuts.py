"""Connections to PostgreSQL cut at the worst moment: nothing is lost, leaked or doubled."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from relaygw.errors import StoreUnavailable, Unstorable
from relaygw.store import migrate
from relaygw.store.database import Transaction, Write
from relaygw.store.postgres import PostgresDatabase
from relaygw.store.selection import Selection
from relaygw.store.store import Store, open_store, store_on
from tests.builders import NOW_MS, accepted, instance
from tests.contract.cutting_proxy import CuttingProxy
from tests.e2e.ports import free_port
from tests.postgres import PostgresServer, running_server
from tests.queues import make_queue

CLAIM = "SET state = 'active'"
GIVE_BACK = "CASE WHEN attempts > 0 THEN 'deferred'"
ACCEPT = "INSERT INTO message"
TAKE_PERMITS = "INSERT INTO permit"
RELEASE_PERMITS = "DELETE FROM permit"


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[CuttingProxy]:
    make_queue(postgres_url)
    with CuttingProxy(postgres_url) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: CuttingProxy) -> Iterator[Store]:
    """Return a store whose connections may be cut."""
    store = open_store(proxy.url)
    store.instances.register(instance("one"))
    yield store
    store.close()


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """Return a server whose settings may be changed."""
    with running_server() as server:
        yield server


@pytest.fixture
def other(postgres_url: str) -> Iterator[Store]:
    """Return a store of the same queue that nothing happens to."""
    store = open_store(postgres_url)
    yield store
    store.close()


def claim(store: Store) -> list[str]:
    found = store.leases.claim("default", limit=10, incarnation="one", now_ms=NOW_MS)
    return [one.queue_id for one in found]


# --- claims -------------------------------------------------------------------------------


def test_leases_of_a_claim_whose_answer_was_lost_are_freed(
    store: Store, proxy: CuttingProxy
) -> None:
    known, unknown = accepted(at_ms=NOW_MS - 1), accepted()
    store.intake.accept_batch([known])
    assert claim(store) == [known.queue_id]
    store.intake.accept_batch([unknown])
    proxy.lose_answer(CLAIM)
    with pytest.raises(StoreUnavailable):
        claim(store)
    assert claim(store) == [], "the claim took place"
    freed = store.leases.free_unknown("default", known=[(known.queue_id, 0)], incarnation="one")
    assert freed == 1
    assert claim(store) == [unknown.queue_id]


def test_a_claim_that_is_still_under_way_is_waited_for(
    store: Store, other: Store, proxy: CuttingProxy
) -> None:
    message = accepted()
    store.intake.accept_batch([message])
    cut = proxy.hold_commit(CLAIM)
    with pytest.raises(StoreUnavailable):
        claim(store)
    freed: list[int] = []
    waiting = threading.Thread(
        target=lambda: freed.append(
            other.leases.free_unknown("default", known=[], incarnation="one")
        )
    )
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive(), "it must not look before that claim has ended"
    cut.let_go()
    waiting.join(20)
    assert freed == [1]
    assert claim(store) == [message.queue_id]


def test_a_return_of_leases_whose_answer_was_lost_is_known_afterwards(
    store: Store, proxy: CuttingProxy
) -> None:
    message = accepted()
    store.intake.accept_batch([message])
    claim(store)
    proxy.lose_answer(GIVE_BACK)
    with pytest.raises(StoreUnavailable):
        store.leases.give_back([(message.queue_id, 0)], incarnation="one")
    assert store.leases.free_unknown("default", known=[], incarnation="one") == 0
    assert claim(store) == [message.queue_id]


# --- permits ------------------------------------------------------------------------------


def test_permits_are_counted_after_an_answer_was_lost(store: Store, proxy: CuttingProxy) -> None:
    proxy.lose_answer(TAKE_PERMITS)
    with pytest.raises(StoreUnavailable):
        store.limits.acquire_permits("p", wanted=3, limit=5, incarnation="one")
    assert store.limits.permits_held("p", incarnation="one") == 3
    proxy.lose_answer(RELEASE_PERMITS)
    with pytest.raises(StoreUnavailable):
        store.limits.release_permits("p", count=2, incarnation="one")
    assert store.limits.permits_held("p", incarnation="one") == 1


@pytest.mark.parametrize("change", [TAKE_PERMITS, RELEASE_PERMITS])
def test_permits_are_not_counted_while_they_still_change(
    store: Store, other: Store, proxy: CuttingProxy, change: str
) -> None:
    store.limits.acquire_permits("p", wanted=2, limit=5, incarnation="one")
    cut = proxy.hold_commit(change)
    with pytest.raises(StoreUnavailable):
        if change == TAKE_PERMITS:
            store.limits.acquire_permits("p", wanted=2, limit=5, incarnation="one")
        else:
            store.limits.release_permits("p", count=2, incarnation="one")
    held: list[int] = []
    waiting = threading.Thread(
        target=lambda: held.append(other.limits.permits_held("p", incarnation="one"))
    )
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    cut.let_go()
    waiting.join(20)
    assert held == [4 if change == TAKE_PERMITS else 0]


# --- accepting ----------------------------------------------------------------------------


def test_mail_whose_commit_was_not_answered_is_stored_once(
    store: Store, proxy: CuttingProxy
) -> None:
    message = accepted()
    cut = proxy.lose_answer(ACCEPT)
    store.intake.accept_batch([message])
    assert cut.happened.is_set()
    assert [entry.queue_id for entry in store.queue.search(Selection(), limit=10)] == [
        message.queue_id
    ]


def test_mail_whose_commit_comes_late_is_stored_once(store: Store, proxy: CuttingProxy) -> None:
    message = accepted()
    cut = proxy.hold_commit(ACCEPT)
    accepting = threading.Thread(target=store.intake.accept_batch, args=([message],))
    accepting.start()
    assert cut.happened.wait(20)
    accepting.join(0.5)  # by now it writes a second time, and waits for the first
    cut.let_go()
    accepting.join(20)
    assert not accepting.is_alive()
    assert [entry.queue_id for entry in store.queue.search(Selection(), limit=10)] == [
        message.queue_id
    ]


def test_what_waited_behind_a_write_that_gave_up_does_not_wait_again() -> None:
    url = f"postgresql://relaygw@127.0.0.1:{free_port()}/q"
    store = store_on(PostgresDatabase(url, reconnect_s=0.5, refusing_s=60.0))
    began_s = time.monotonic()
    for _ in range(50):
        with pytest.raises(StoreUnavailable, match="check that the server runs"):
            store.intake.accept_batch([accepted()])
    assert 0.5 <= time.monotonic() - began_s < 5.0
    store.close()


def test_a_server_that_is_there_and_silent_is_not_waited_for(
    proxy: CuttingProxy, other: Store
) -> None:
    store = store_on(PostgresDatabase(proxy.url, answer_s=0.5))
    store.instances.register(instance("one"))
    proxy.is_frozen = True
    with pytest.raises(StoreUnavailable, match="did not answer within"):
        store.instances.heartbeat("one")
    proxy.is_frozen = False
    message = accepted()
    store.intake.accept_batch([message])
    assert [entry.queue_id for entry in other.queue.search(Selection(), limit=10)] == [
        message.queue_id
    ]
    store.close()


def test_a_commit_that_waits_for_a_standby_is_not_called_done(own_server: PostgresServer) -> None:
    url = own_server.create_database()
    migrate.upgrade(url)
    store = store_on(PostgresDatabase(url, answer_s=1.0, reconnect_s=0.0, refusing_s=0.0))
    own_server.set("synchronous_standby_names", "nobody")
    with pytest.raises(StoreUnavailable, match="did not answer within"):
        store.intake.accept_batch([accepted()])
    own_server.set("synchronous_standby_names", "")
    message = accepted()
    store.intake.accept_batch([message])
    assert message.queue_id in [
        entry.queue_id for entry in store.queue.search(Selection(), limit=10)
    ]
    store.close()


def test_what_cannot_be_stored_is_not_shown_in_the_error(other: Store, postgres_url: str) -> None:
    make_queue(postgres_url)
    message = accepted()
    with other.database.write() as connection:
        connection.connection.exec_driver_sql(
            "ALTER TABLE message ADD CONSTRAINT bad CHECK (subject = '')"
        )
    with pytest.raises(Unstorable, match='violates check constraint "bad"') as refused:
        other.intake.accept_batch([message])
    assert message.sender not in str(refused.value)


# --- who is cut off -----------------------------------------------------------------------


def test_a_transaction_whose_client_is_silent_ends_and_frees_what_it_locked(
    proxy: CuttingProxy, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_on(PostgresDatabase(proxy.url, idle_s=1.0))
    store.instances.register(instance("one"))
    message = accepted()
    store.intake.accept_batch([message])

    @contextmanager
    def cut_off(kind: Write) -> Iterator[Transaction]:
        with store.database.write(kind) as tx:
            yield tx
            proxy.is_frozen = True  # as when the machine loses its power or its network
            began_s = time.monotonic()
            assert other.instances.bury("one") == 0, "the claim was never committed"
            assert time.monotonic() - began_s < 10
            proxy.cut_all()

    monkeypatch.setattr(store.leases, "_write", cut_off)
    with pytest.raises(StoreUnavailable):
        store.leases.claim("default", limit=9, incarnation="one", now_ms=NOW_MS)
    other.instances.register(instance("two"))
    found = other.leases.claim("default", limit=9, incarnation="two", now_ms=NOW_MS)
    assert [one.queue_id for one in found] == [message.queue_id]
    store.close()


def test_who_was_cut_off_leaves_the_others_time_before_it_calls_them_dead(
    other: Store, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_queue(postgres_url)
    clock = SimpleNamespace(now_s=1000.0)
    for clock_of in ("relaygw.store.instances.awake_s", "relaygw.store.instances.running_s"):
        monkeypatch.setattr(clock_of, lambda: clock.now_s)
    judge = open_store(postgres_url)
    for name in ("judge", "dead"):
        judge.instances.register(instance(name))
    assert judge.instances.stale_incarnations(20.0) == []

    def judged_at(now_s: float, *, with_beat: bool = True) -> list[str]:
        clock.now_s = now_s
        if with_beat:
            judge.instances.heartbeat("judge")
        return judge.instances.stale_incarnations(20.0)

    assert [judged_at(1000.0 + age_s) for age_s in (5, 10, 15, 20)] == [[], [], [], ["dead"]]
    assert judged_at(1041.0, with_beat=False) == [], "its own heartbeats were not answered"
    assert [judged_at(1042.0 + age_s) for age_s in (0, 5, 10, 15)] == [[]] * 4
    assert judged_at(1062.0) == ["dead"]
    assert other.instances.stale_incarnations(20.0) == [], "it has not looked for so long"
    clock.now_s += 20
    assert "dead" in other.instances.stale_incarnations(20.0)
    judge.close()
