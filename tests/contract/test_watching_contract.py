"""What every store must do with history, duties and incidents."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from relaygw.store import watch
from relaygw.store.store import Store
from relaygw.store.watch import DUTY_MS, HISTORY_SLICE_MS, HistoryPoint, Incident
from tests.builders import NOW_MS, accepted, instance
from tests.contract.conftest import clock_at, forget_watched, open_store
from tests.contract.test_store_contract import claim, defer

SLICE_MS = NOW_MS - NOW_MS % HISTORY_SLICE_MS
DAY_MS = 86_400_000


def point(label: str, amount: int, *, at_ms: int = SLICE_MS, series: str = "x") -> HistoryPoint:
    return HistoryPoint(slice_at_ms=at_ms, series=series, label=label, amount=amount)


def incident(incident_id: str = "1", **more: object) -> Incident:
    values: dict[str, object] = {
        "rule": "provider_down",
        "key": "main",
        "summary": "provider main cannot be reached",
        "remedy": "wait",
        "since_ms": NOW_MS,
    }
    return Incident(incident_id=incident_id, **values | more)  # type: ignore[arg-type]


# --- history ------------------------------------------------------------------------------


def test_counts_of_a_slice_add_up(store: Store) -> None:
    store.watch.add_history(SLICE_MS, {("x", "a"): 2, ("x", "b"): 1})
    store.watch.add_history(SLICE_MS + HISTORY_SLICE_MS - 1, {("x", "a"): 3})
    store.watch.add_history(SLICE_MS + HISTORY_SLICE_MS, {("x", "a"): 4})
    later = point("a", 4, at_ms=SLICE_MS + HISTORY_SLICE_MS)
    assert store.watch.history(SLICE_MS) == [point("a", 5), point("b", 1), later]
    assert store.watch.history(SLICE_MS + HISTORY_SLICE_MS) == [later]


def test_of_gauges_the_greatest_is_kept(store: Store) -> None:
    for amount in (3, 7, 5):
        store.watch.add_history(NOW_MS, {("queue", "deferred"): amount}, are_gauges=True)
    assert store.watch.history(0) == [point("deferred", 7, series="queue")]


def test_one_may_ask_for_some_series_only(store: Store) -> None:
    store.watch.add_history(NOW_MS, {("x", "a"): 1, ("y", "a"): 1, ("z", ""): 1})
    assert [one.series for one in store.watch.history(0, series=["y", "z"])] == ["y", "z"]


def test_counts_are_added_up_by_steps_of_time(store: Store) -> None:
    for ago in range(6):
        counts = {("x", "a"): 1, ("x", "b"): ago, ("y", "a"): 9}
        store.watch.add_history(SLICE_MS - ago * HISTORY_SLICE_MS, counts)
    start_ms, step_ms = SLICE_MS - 5 * HISTORY_SLICE_MS, 3 * HISTORY_SLICE_MS
    sums = store.watch.sums(start_ms, step_ms=step_ms, series=["x"])
    assert sorted(sums) == [(0, "x", "a", 3), (0, "x", "b", 12), (1, "x", "a", 3), (1, "x", "b", 3)]
    assert store.watch.sums(SLICE_MS + HISTORY_SLICE_MS, step_ms=step_ms, series=["x"]) == []


def test_more_counts_than_a_statement_takes(store: Store) -> None:
    amounts = {("x", f"{number:03}"): number for number in range(170)}
    for _ in range(2):
        store.watch.add_history(NOW_MS, amounts)
    assert [one.amount for one in store.watch.history(0)] == [2 * number for number in range(170)]


def test_instances_add_into_the_same_rows(store: Store, url: str) -> None:
    others = [open_store(url) for _ in range(3)]

    def add_often(one: Store) -> None:
        for _ in range(20):
            one.watch.add_history(NOW_MS, {("x", "a"): 1, ("x", "b"): 1, ("y", "c"): 1})

    threads = [threading.Thread(target=add_often, args=(one,)) for one in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in others:
        one.close()
    assert [one.amount for one in store.watch.history(0)] == [60, 60, 60]


def test_old_history_goes_day_by_day(store: Store) -> None:
    for day in range(4):
        store.watch.add_history(SLICE_MS - day * DAY_MS, {("x", "a"): day})
    before_ms = SLICE_MS - DAY_MS
    assert forget_watched(store, before_ms)
    assert [one.amount for one in store.watch.history(0)] == [2, 1, 0]
    while forget_watched(store, before_ms):
        pass
    assert [one.amount for one in store.watch.history(0)] == [1, 0], (
        "what is not over its time stays"
    )
    assert not forget_watched(store, before_ms)


# --- duties -------------------------------------------------------------------------------


def test_one_living_incarnation_has_a_duty(store: Store) -> None:
    store.instances.register(instance("two"))
    assert store.watch.duty("watch", "one")
    assert not store.watch.duty("watch", "two")
    assert store.watch.duty("watch", "one")
    assert store.watch.duty("other", "two")


def test_a_duty_is_taken_over_from_who_died(store: Store) -> None:
    store.instances.register(instance("two"))
    assert store.watch.duty("watch", "one")
    store.instances.bury("one")
    assert store.watch.duty("watch", "two")
    assert not store.watch.duty("watch", "one"), "the dead have no duty"


def test_a_duty_is_taken_over_from_who_is_silent(store: Store) -> None:
    store.instances.register(instance("two"))
    for name, at_ms, has_duty in (
        ("one", 0, True),
        ("two", DUTY_MS - 1, False),
        ("two", DUTY_MS, True),
        ("one", DUTY_MS, False),
    ):
        with clock_at(store, NOW_MS + at_ms):
            assert store.watch.duty("watch", name) is has_duty, (name, at_ms)


def test_who_renews_keeps_a_duty(store: Store) -> None:
    store.instances.register(instance("two"))
    for at_ms in range(0, 3 * DUTY_MS, DUTY_MS // 2):
        with clock_at(store, NOW_MS + at_ms):
            assert store.watch.duty("watch", "one")
            assert not store.watch.duty("watch", "two")


def test_nobody_who_is_not_registered_has_a_duty(store: Store) -> None:
    assert not store.watch.duty("watch", "stranger")
    assert store.watch.duty("watch", "one")


def test_of_many_who_want_a_duty_at_once_one_has_it(
    store: Store, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as if all had looked before the first of them took it
    monkeypatch.setattr(watch, "_has_duty", lambda *_args, **_more: None)
    others = [open_store(url) for _ in range(4)]
    for number in range(4):
        store.instances.register(instance(f"i{number}"))
    have: list[bool] = []
    gate = threading.Barrier(4)

    def want(number: int) -> None:
        gate.wait()
        have.append(others[number].watch.duty("watch", f"i{number}"))

    threads = [threading.Thread(target=want, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in others:
        one.close()
    assert sorted(have) == [False, False, False, True]


# --- incidents ----------------------------------------------------------------------------


def test_an_incident_is_opened_once(store: Store) -> None:
    assert store.watch.open_incident(incident("1"))
    assert not store.watch.open_incident(incident("2"))
    assert store.watch.open_incident(incident("3", key="spare"))
    assert [one.incident_id for one in store.watch.incidents(NOW_MS)] == ["1", "3"]


def test_an_incident_that_is_over_may_come_again(store: Store) -> None:
    store.watch.open_incident(incident("1"))
    store.watch.end_incident("1", at_ms=NOW_MS + 5)
    store.watch.end_incident("1", at_ms=NOW_MS + 9)
    assert store.watch.open_incident(incident("2", since_ms=NOW_MS + 10))
    ended = incident("1", recovered_at_ms=NOW_MS + 5)
    again = incident("2", since_ms=NOW_MS + 10)
    assert store.watch.incidents(NOW_MS + 5) == [ended, again]
    assert store.watch.incidents(NOW_MS + 6) == [again], "what ended before is not asked for"


def test_who_was_told_is_kept(store: Store) -> None:
    store.watch.open_incident(incident("1"))
    for channel in ("ops", "pager", "ops"):
        store.watch.note_told("1", channel, is_recovery=False)
    store.watch.note_told("1", "ops", is_recovery=True)
    store.watch.note_told("unknown", "ops", is_recovery=True)
    (found,) = store.watch.incidents(NOW_MS)
    assert found.told == ("ops", "pager")
    assert found.recovery_told == ("ops",)


def test_incidents_that_are_over_go_with_the_history(store: Store) -> None:
    for number in range(3):
        store.watch.open_incident(incident(str(number), key=str(number)))
    store.watch.end_incident("0", at_ms=NOW_MS + 5)
    store.watch.end_incident("1", at_ms=NOW_MS + 7)
    forget_watched(store, NOW_MS + 7)
    assert [one.incident_id for one in store.watch.incidents(0)] == ["1", "2"]


def test_mail_in_doubt_is_counted_by_provider(store: Store) -> None:
    doubted, other = accepted(), accepted()
    store.intake.accept_batch([doubted, other])
    claim(store)
    store.leases.record_batch(
        [
            replace(defer(doubted.queue_id, due_at_ms=NOW_MS), doubted=True),
            defer(other.queue_id, due_at_ms=NOW_MS),
        ],
        incarnation="one",
        now_ms=NOW_MS,
    )
    assert store.watch.doubtful() == {"main": 1}


def test_a_digest_that_was_put_off_counts_its_tries_until_it_is_told(store: Store) -> None:
    begun = store.digests.digest_state("mail", until_ms=NOW_MS)
    later_ms = NOW_MS + 1000
    assert store.digests.pass_digest("mail", state=begun, until_ms=later_ms)
    assert not store.digests.pass_digest("mail", state=begun, until_ms=later_ms)
    store.digests.put_off_digest("mail", state=begun, until_ms=later_ms, wait_ms=5000)
    put_off = store.digests.digest_state("mail", until_ms=0)
    assert (put_off.until_ms, put_off.tries) == (NOW_MS, 1)
    assert store.digests.pass_digest("mail", state=put_off, until_ms=later_ms)
    told = store.digests.digest_state("mail", until_ms=0)
    assert (told.until_ms, told.tries, told.again_at_ms) == (later_ms, 0, 0)
