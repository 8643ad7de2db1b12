"""Instances whose clocks are minutes off share a PostgreSQL queue as if they were not."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

from relaygw.mail.content_facts import ContentFacts
from relaygw.mail.envelope import NewRecipient, Released, ReleasedDelivery
from relaygw.mail.search import parse_search
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store import migrate
from relaygw.store.captured import WebSession
from relaygw.store.commands import ShapeKey, Trail
from relaygw.store.postgres import PostgresStore
from relaygw.store.protocol import AuditEntry, Hold, Release, Selection, SenderNote, Store
from relaygw.store.tables import metadata
from relaygw.store.watching import Incident
from tests.builders import accepted
from tests.contract.conftest import instance
from tests.contract.test_store_contract import defer, finish

FAST_MS = 600_000
TOLERANCE_MS = 5_000


class FastStore(PostgresStore):
    """The store of a machine whose clock is ten minutes fast."""

    def _here_ms(self) -> int:
        return super()._here_ms() + FAST_MS


@pytest.fixture
def right(postgres_url: str) -> Iterator[PostgresStore]:
    """Return the store of a machine that has the database's time."""
    migrate.upgrade(postgres_url)
    store = PostgresStore(postgres_url, keep_content=False)
    store.register(instance("right"))
    yield store
    store.close()


@pytest.fixture
def fast(right: PostgresStore, postgres_url: str) -> Iterator[FastStore]:
    store = FastStore(postgres_url, keep_content=False)
    store.register(instance("fast"))
    yield store
    store.close()


def claimed(store: PostgresStore, *, in_ms: int = 0) -> list[str]:
    """Return what a store's machine gets when it asks by its own clock."""
    name = "fast" if isinstance(store, FastStore) else "right"
    now_ms = store._here_ms() + in_ms
    found = store.claim("default", limit=10, incarnation=name, now_ms=now_ms)
    for one in found:
        age_ms = now_ms - one.accepted_at_ms
        assert abs(age_ms - in_ms) < TOLERANCE_MS, "mail is as old as it is"
    return [one.queue_id for one in found]


def test_new_mail_of_a_fast_machine_is_due_for_all(right: PostgresStore, fast: FastStore) -> None:
    message = accepted(at_ms=fast._here_ms())
    fast.accept_batch([message])
    due_at_ms = right.next_due_at_ms("default")
    assert due_at_ms is not None
    assert abs(due_at_ms - right._here_ms()) < TOLERANCE_MS
    assert claimed(right) == [message.queue_id]


def test_what_a_fast_machine_puts_off_waits_as_long_as_it_says(
    right: PostgresStore, fast: FastStore
) -> None:
    message = accepted(at_ms=right._here_ms())
    right.accept_batch([message])
    assert claimed(fast) == [message.queue_id]
    now_ms = fast._here_ms()
    update = defer(message.queue_id, due_at_ms=now_ms + 60_000)
    assert fast.record_batch([update], incarnation="fast", now_ms=now_ms).lost == ()
    for store in (right, fast):
        assert claimed(store, in_ms=50_000) == []
        due_at_ms = store.next_due_at_ms("default")
        assert due_at_ms is not None
        assert abs(due_at_ms - store._here_ms() - 60_000) < TOLERANCE_MS
    assert claimed(right, in_ms=65_000) == [message.queue_id]


def test_a_fast_machine_deletes_nothing_before_its_time(
    right: PostgresStore, fast: FastStore
) -> None:
    old, orphan = (accepted(at_ms=right._here_ms()) for _ in range(2))
    right.accept_batch([old])
    right.add_chunks(orphan.queue_id, 0, [b"x"])
    claimed(right)
    right.record_batch([finish(old.queue_id)], incarnation="right", now_ms=right._here_ms())
    retention_ms = FAST_MS // 2
    cutoff_ms = fast._here_ms() - retention_ms
    assert fast.purge({"finished": cutoff_ms, "orphans": cutoff_ms}, limit=10) == 0
    assert right.read_chunk(orphan.queue_id, 0) == b"x"


def test_what_one_learnt_of_a_provider_is_as_old_for_all(
    right: PostgresStore, fast: FastStore
) -> None:
    for store in (right, fast):
        group = type(store).__name__
        store.lower_rate(group, per_s=30.0, guard_s=1.0)
        store.lower_connections(group, own=3, incarnation="right", guard_s=1.0)
        store.acquire_permits(group, wanted=1, limit=0, incarnation="right")
    for store in (right, fast):
        for account in store.accounts().values():
            for at_ms in (account.ceiling_at_ms, account.connections_at_ms, account.wanted_at_ms):
                assert abs(at_ms - store._here_ms()) < TOLERANCE_MS


def test_the_guard_against_one_trouble_counted_twice_holds_between_clocks(
    right: PostgresStore, fast: FastStore
) -> None:
    right.lower_rate("p", per_s=30.0, guard_s=60.0)
    fast.lower_rate("p", per_s=5.0, guard_s=60.0)
    assert right.accounts()["p"].ceiling_per_s == 30.0
    fast.lower_connections("p", own=3, incarnation="fast", guard_s=60.0)
    right.lower_connections("p", own=8, incarnation="right", guard_s=60.0)
    assert right.accounts()["p"].ceiling_connections == 3


def test_a_hold_is_probed_at_one_time_and_counted_once(
    right: PostgresStore, fast: FastStore
) -> None:
    now_ms = fast._here_ms()
    fast.put_hold(
        Hold(
            scope="provider",
            key="p",
            reason="r",
            remedy="",
            since_ms=now_ms - 60_000,
            probe_at_ms=now_ms + 60_000,
        )
    )
    for store in (right, fast):
        (hold,) = store.holds()
        assert hold.probe_at_ms is not None
        assert abs(hold.since_ms + 60_000 - store._here_ms()) < TOLERANCE_MS
        assert abs(hold.probe_at_ms - 60_000 - store._here_ms()) < TOLERANCE_MS
    right.drop_hold("provider", "p", now_ms=right._here_ms())
    for store in (right, fast):
        until_ms = store._here_ms()
        held_ms = store.held_ms("p", since_ms=until_ms - 3_600_000, now_ms=until_ms)
        assert abs(held_ms - 60_000) < TOLERANCE_MS


def test_time_held_by_operators_is_by_one_clock(right: PostgresStore, fast: FastStore) -> None:
    message = accepted(at_ms=right._here_ms())
    right.accept_batch([message])
    entry = AuditEntry(at_ms=0, actor="a", action="x", target="t", affected=0, detail="")
    for store, to in ((fast, DeliveryState.HELD), (right, DeliveryState.DEFERRED)):
        store.change_state(
            [message.queue_id],
            from_states=frozenset(DeliveryState),
            to=to,
            reason="operator",
            due_at_ms=store._here_ms(),
            entry=replace(entry, at_ms=store._here_ms()),
        )
    assert claimed(fast) == [message.queue_id]
    (shown,) = right.search(Selection(queue_ids=(message.queue_id,)), limit=1)
    assert shown.deliveries[0].attempts == 0
    (found,) = right.audit_entries(limit=1)
    assert abs(found.at_ms - time.time_ns() // 1_000_000) < TOLERANCE_MS


def test_older_than_means_the_same_everywhere(right: PostgresStore, fast: FastStore) -> None:
    message = accepted(at_ms=right._here_ms())
    right.accept_batch([message])
    young = Selection(accepted_before_ms=fast._here_ms() - FAST_MS // 2)
    assert fast.search(young, limit=1) == []
    old = Selection(accepted_before_ms=fast._here_ms() + FAST_MS // 2)
    assert len(fast.search(old, limit=1)) == 1


def test_heartbeats_are_as_old_as_they_are(right: PostgresStore, fast: FastStore) -> None:
    for store in (right, fast):
        for one in store.instances():
            assert abs(one.heartbeat_at_ms - store._here_ms()) < TOLERANCE_MS
            assert abs(one.started_at_ms - store._here_ms()) < TOLERANCE_MS


def test_a_clock_that_is_set_is_noticed_with_the_next_heartbeat(right: PostgresStore) -> None:
    assert right._ahead_ms == 0
    right._here_ms = lambda: time.time_ns() // 1_000_000 - FAST_MS
    right.heartbeat("right")
    assert abs(right._ahead_ms - FAST_MS) < TOLERANCE_MS


def test_history_and_incidents_have_one_time_for_all(right: PostgresStore, fast: FastStore) -> None:
    fast.add_history(fast._here_ms(), {("x", "a"): 1})
    right.add_history(right._here_ms(), {("x", "a"): 2})
    assert sum(point.amount for point in right.history(right._here_ms() - 300_000)) == 3
    assert sum(point.amount for point in fast.history(fast._here_ms() - 300_000)) == 3
    since_ms = fast._here_ms()
    fast.open_incident(
        Incident(incident_id="1", rule="x", key="", summary="", remedy="", since_ms=since_ms)
    )
    right.end_incident("1", at_ms=right._here_ms() + 5000)
    (seen,) = right.incidents(right._here_ms())
    assert abs(seen.since_ms - right._here_ms()) < TOLERANCE_MS
    (seen,) = fast.incidents(fast._here_ms())
    assert seen.recovered_at_ms is not None
    assert abs(seen.recovered_at_ms - fast._here_ms() - 5000) < TOLERANCE_MS
    assert fast.incidents(fast._here_ms() + 60_000) == []


# --- every verb, by a machine whose clock is wrong ---------------------------------------------

HOUR_MS = 3_600_000
LEAST_MS = 10**12  # a greater number is a time
VERBS = {
    name
    for base in Store.__mro__
    for name, member in vars(base).items()
    if inspect.isfunction(member) and not name.startswith("_")
}


class WrongClock:
    """A store whose machine's clock is wrong, for the store and for whoever calls it."""

    def __init__(self, store: PostgresStore, wrong_ms: int) -> None:
        self.store = store
        self._wrong_ms = wrong_ms

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self._wrong_ms

    def call(self, verb: str, *given: Any, **named: Any) -> Any:
        right_ns = time.time_ns
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time_ns", lambda: right_ns() + self._wrong_ms * 1_000_000)
            return getattr(self.store, verb)(*given, **named)


@pytest.fixture(params=[HOUR_MS, -HOUR_MS], ids=["fast", "slow"])
def wrong(
    request: pytest.FixtureRequest, right: PostgresStore, postgres_url: str
) -> Iterator[WrongClock]:
    store = PostgresStore(postgres_url, keep_content=True)
    yield WrongClock(store, request.param)
    store.close()


def walk(wrong: WrongClock) -> tuple[dict[str, Any], set[str]]:
    """Use every verb as a gateway would; return what those said that tell of times."""
    used: set[str] = set()
    now_ms = wrong.now_ms()

    def call(verb: str, *given: Any, **named: Any) -> Any:
        used.add(verb)
        return wrong.call(verb, *given, **named)

    def entry(action: str) -> AuditEntry:
        return AuditEntry(
            at_ms=wrong.now_ms(), actor="a", action=action, target="t", affected=0, detail=action
        )

    call("register", instance("wrong"))
    call("heartbeat", "wrong")
    captured = NewRecipient(address="c@x.test", state=RecipientState.CAPTURED)
    sent, put_off, held, trash, kept, seen = (
        accepted(*people, at_ms=now_ms) for people in ([], [], [], [], [], [captured])
    )
    call("accept_batch", [sent, put_off, held, trash, kept, seen])
    call("add_chunks", accepted(at_ms=now_ms).queue_id, 0, [b"x"])
    assert call("next_due_at_ms", "default") is not None
    claimed = call("claim", "default", limit=9, incarnation="wrong", now_ms=wrong.now_ms())
    assert {one.queue_id for one in claimed} == {
        one.queue_id for one in (sent, put_off, held, trash, kept)
    }
    outcomes = [
        replace(finish(sent.queue_id), due_at_ms=wrong.now_ms()),
        defer(put_off.queue_id, due_at_ms=wrong.now_ms() + 1000),
    ]
    call("record_batch", outcomes, incarnation="wrong", now_ms=wrong.now_ms())
    call("give_back", [(one.queue_id, 0) for one in (held, trash)], incarnation="wrong")
    call("free_unknown", "default", known=(), incarnation="wrong")
    call("bury", "nobody")
    call("stale_incarnations", 20.0)
    call("read_chunk", kept.queue_id, 0)
    for one, to in ((held, DeliveryState.HELD), (trash, DeliveryState.DELETED)):
        call(
            "change_state",
            [one.queue_id],
            from_states=frozenset(DeliveryState),
            to=to,
            reason="why",
            due_at_ms=wrong.now_ms(),
            entry=entry(f"queue.{to}"),
        )
    call("undelete", [trash.queue_id], entry=entry("queue.undelete"))
    call("expire", [trash.queue_id], reason="over", entry=entry("queue.expire"))
    moved = {"provider": "p", "ended_reasons": (), "is_forced": True}
    call("move", [kept.queue_id], entry=entry("queue.move"), **moved)
    call("release_held", "why", limit=9, now_ms=wrong.now_ms())
    call("held_reasons")
    call("routes_waiting")
    call("let_go", [(held.queue_id, 0)], reason="another", now_ms=wrong.now_ms())
    call("reroute", [], entry=entry("queue.reroute"))
    call("register", replace(instance("lost"), name="elsewhere"))
    call("bury", "lost", is_lost=True)
    call("ownerless")
    assert call("restart_waits", limit=9) == 0
    part = ReleasedDelivery(
        released=Released.ALLOWED,
        route="default",
        stream="transactional",
        recipients=(NewRecipient(address="d@x.test"),),
    )
    released = Release(queue_id=seen.queue_id, deliveries=(part,), entry=entry("sandbox.release"))
    assert call("release_captured", [released]) == {seen.queue_id}

    call("acquire_permits", "p", wanted=1, limit=1, incarnation="wrong")
    call("acquire_permits", "p", wanted=1, limit=1, incarnation="wrong")
    call("permits_held", "p", incarnation="wrong")
    call("release_permits", "p", count=0, incarnation="wrong")
    call("take_tokens", "p", wanted=1, per_s=5.0)
    call("use_quota", "p", wanted=1, quota=5)
    assert call("quota_used", "p") == 1
    call("lower_rate", "p", per_s=3.0, guard_s=1.0)
    call("lower_connections", "p", own=2, incarnation="wrong", guard_s=1.0)
    note = SenderNote(provider="p", sender="s", accepted_at_ms=now_ms, refused_at_ms=now_ms)
    call("note_senders", [note])
    hold = Hold(
        scope="provider", key="p", reason="", remedy="", since_ms=now_ms, probe_at_ms=now_ms
    )
    call("put_hold", hold, entry=entry("provider.hold"))
    call("put_hold", replace(hold, key="q"))
    call("drop_hold", "provider", "q", now_ms=wrong.now_ms(), entry=entry("provider.release"))
    assert call("held_ms", "p", since_ms=0, now_ms=now_ms + 5000) == 5000

    call("index", {seen.queue_id: ContentFacts()})
    call("mark_read", [seen.queue_id], at_ms=wrong.now_ms())
    call("set_tags", [seen.queue_id], ["x"])
    call("rename_tag", "x", "y")
    call("tags")
    call("delete_tag", "y")
    gone = accepted(captured, at_ms=now_ms)
    call("accept_batch", [gone])
    call("accept_batch", [accepted(captured, at_ms=now_ms)])
    call("delete_captured", [gone.queue_id], entry=entry("sandbox.delete"))
    session = WebSession(
        token_hash="h",
        user_name="u",
        created_at_ms=now_ms,
        seen_at_ms=now_ms,
        expires_at_ms=now_ms + 60_000,
    )
    call("put_session", session)
    call("put_session", replace(session, token_hash="i"))
    call("drop_session", "i")
    call("drop_sessions_of", "nobody")

    call("add_history", wrong.now_ms(), {("x", "a"): 1})
    call("raise_history", wrong.now_ms(), {("y", "a"): 1})
    call("duty", "watch", "wrong")
    incident = Incident(
        incident_id="1", rule="x", key="", summary="", remedy="", since_ms=wrong.now_ms()
    )
    call("open_incident", incident)
    call("end_incident", "1", at_ms=wrong.now_ms())
    call("note_told", "1", "ops", is_recovery=False)
    call("doubtful")
    call("add_audit", entry("config.changed"))

    parked, in_hand = accepted(at_ms=now_ms), accepted(at_ms=now_ms)
    call("accept_batch", [parked, in_hand])
    call(
        "change_state",
        [parked.queue_id],
        from_states=frozenset(DeliveryState),
        to=DeliveryState.HELD,
        reason="why",
        due_at_ms=wrong.now_ms(),
        entry=entry("queue.held"),
    )
    call("claim", "default", limit=9, incarnation="wrong", now_ms=wrong.now_ms())

    # nothing of this is over its time
    cutoffs = dict.fromkeys(("finished", "captured", "deleted", "orphans"), now_ms - 60_000)
    assert call("purge", cutoffs, limit=9) == 0
    assert not call("shed_content", now_ms - 60_000)
    assert not call("forget_watched", now_ms - 600_000)
    call("trim_captured", keep=9, limit=9)
    call("checkpoint")
    call("shrink")
    assert abs(call("clock_ms") - time.time_ns() // 1_000_000) < TOLERANCE_MS
    old = Selection(states=frozenset(DeliveryState), accepted_before_ms=now_ms + 60_000)
    bounds_ms = [60_000, 2 * HOUR_MS]
    counted = call("shape", old, by=ShapeKey.ROUTE, bounds_ms=bounds_ms, now_ms=wrong.now_ms())
    assert {one.step for one in counted} == {0}
    new = parse_search(f"after:{(now_ms - 60_000) // 1000}")
    assert call("count_captured", new) == (1, 0)
    assert call("captured_ids", new, limit=9) == [seen.queue_id]
    assert call("search_ids", old, limit=9)
    call("taken_drops", ["d"])
    everything = [one.queue_id for one in (sent, put_off, held, trash, kept, seen)]
    asked: dict[str, Any] = {
        "search": ((old,), {"limit": 9}),
        "entries": ((everything,), {}),
        "waiting": ((), {"limit": 9}),
        "counts": ((), {}),
        "attempts": ((put_off.queue_id,), {}),
        "record_of": ((put_off.queue_id,), {}),
        "audit_entries": ((), {"limit": 20, "trail": Trail(since_ms=now_ms - 60_000)}),
        "unindexed": ((), {"limit": 9}),
        "find_captured": ((new,), {"start": 0, "limit": 9}),
        "captured_entry": ((None,), {}),
        "session": (("h",), {}),
        "instances": ((), {}),
        "accounts": ((), {}),
        "senders": ((), {}),
        "holds": ((), {}),
        "held_mail": ((), {}),
        "in_hand_since": ((now_ms + 60_000,), {}),
        "lost_instances": ((now_ms - 60_000,), {}),
        "history": ((now_ms - 300_000,), {}),
        "incidents": ((now_ms - 60_000,), {}),
    }
    told = {verb: call(verb, *given, **named) for verb, (given, named) in asked.items()}
    return told, used | {"close"}


def times_in(value: Any, path: str) -> Iterator[tuple[str, int]]:
    """Yield every time in a value, wherever it stands."""
    if isinstance(value, int):
        if value > LEAST_MS:
            yield path, value
    elif is_dataclass(value):
        for field in fields(value):
            yield from times_in(getattr(value, field.name), f"{path}.{field.name}")
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from times_in(one, f"{path}[{key}]")
    elif isinstance(value, (list, tuple)):
        for number, one in enumerate(value):
            yield from times_in(one, f"{path}[{number}]")


def test_a_machine_whose_clock_is_an_hour_wrong_writes_and_reads_as_all_others(
    right: PostgresStore, wrong: WrongClock
) -> None:
    told, used = walk(wrong)
    assert used == VERBS, "each verb belongs into this walk"
    about_ms = 600_000  # slices of history and of a quota begin earlier
    for verb, result in told.items():
        found = list(times_in(result, verb))
        assert found, f"{verb} tells of no time"
        for path, at_ms in found:
            assert abs(at_ms - wrong.now_ms()) < about_ms, path
    now_ms = time.time_ns() // 1_000_000
    with right._read() as connection:
        for table in metadata.sorted_tables:
            for row in connection.execute(table.select()):
                for column, value in row._mapping.items():
                    if isinstance(value, int) and value > LEAST_MS:
                        at_ms = value // 1000 if column.endswith("_us") else value
                        assert abs(at_ms - now_ms) < about_ms, f"{table.name}.{column}"
