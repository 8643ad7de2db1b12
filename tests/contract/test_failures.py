"""Mail that attempts put off, and what failed lately: lists and counts say the same everywhere."""

from __future__ import annotations

from typing import Any

from relaygw.mail.attempt_state import PUT_OFF, AttemptState
from relaygw.mail.outcome import Verdict
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.shape import Failure
from relaygw.store.store import Store
from tests.builders import NOW_MS, accepted, instance, selected
from tests.contract.test_results import EVERY, add, found
from tests.contract.test_store_attempts import outcome, said

R = RecipientState
MINUTE_MS = 60_000


def put_off(store: Store, *to: str, at_ms: int = NOW_MS, **more: Any) -> str:
    """Let a message be tried once, and be told to come again; return its id."""
    people = to or ("b@cust.test",)
    message = accepted(*people, at_ms=at_ms)
    store.intake.accept_batch([message])
    worker = f"w{message.queue_id}"
    store.instances.register(instance(worker))
    store.leases.claim("default", limit=9, incarnation=worker, now_ms=at_ms)
    told = [said("451 wait", rcpt_no=number, **more) for number in range(len(people))]
    done = outcome(message, *told, due_at_ms=at_ms + 10**9)
    assert store.leases.record_batch([done], incarnation=worker, now_ms=at_ms).lost == ()
    return message.queue_id


def tried(store: Store, *attempts: AttemptState, **more: Any) -> list[str]:
    wanted = frozenset(attempts or PUT_OFF)
    selection = selected(attempts=wanted, **{"states": EVERY, **more})
    return store.queue.search_ids(selection, limit=99, newest_first=True)


def test_mail_is_found_by_how_an_attempt_put_it_off(store: Store) -> None:
    waits = put_off(store, at_ms=NOW_MS - 1)
    throttled = put_off(store, verdict=Verdict.THROTTLE)
    add(store, R.BOUNCED)
    store.intake.accept_batch([accepted()])
    assert tried(store) == [throttled, waits]
    assert tried(store, AttemptState.THROTTLED) == [throttled]
    assert tried(store, AttemptState.HELD) == []
    assert tried(store, states=frozenset({DeliveryState.FINISHED})) == []
    assert tried(store, states=frozenset({DeliveryState.DEFERRED})) == [throttled, waits]


def test_conditions_are_about_the_attempt(store: Store) -> None:
    early = put_off(store, "anna@x.test", "ben@y.test", at_ms=NOW_MS - 5 * MINUTE_MS)
    late = put_off(store, "cid@y.test", provider="spare")
    assert tried(store, since_ms=NOW_MS) == [late]
    assert tried(store, until_ms=NOW_MS - 1) == [early]
    assert tried(store, since_ms=NOW_MS - 5 * MINUTE_MS, until_ms=NOW_MS) == [late, early]
    assert tried(store, provider="main") == [early]
    assert tried(store, domain="y.test") == [late, early]
    assert tried(store, domain="x.test", recipient="ben") == []
    assert tried(store, recipient="ben@", reply="451 WAIT") == [early]
    assert tried(store, reply="421") == []
    assert tried(store, sender="a@shop", route="default", queue_ids=(early,)) == [early]
    assert tried(store, results=frozenset({R.DELIVERED})) == []
    assert tried(store, results=frozenset({R.PENDING}), route="other") == []


def test_an_attempt_is_not_about_who_was_served_before(store: Store) -> None:
    message = accepted("anna@x.test", "ben@y.test")
    store.intake.accept_batch([message])
    store.instances.register(instance("w"))
    for at_ms, told in (
        (NOW_MS, [said("250 Ok", state=R.DELIVERED), said("451 wait", rcpt_no=1)]),
        (NOW_MS + MINUTE_MS, [said("421 no connection", rcpt_no=1)]),
    ):
        store.leases.claim("default", limit=9, incarnation="w", now_ms=at_ms)
        done = outcome(message, *told, due_at_ms=at_ms + 1)
        assert store.leases.record_batch([done], incarnation="w", now_ms=at_ms).lost == ()
    assert tried(store, domain="x.test") == []
    assert tried(store, domain="y.test") == [message.queue_id]
    failures = store.queue.failures(0, step_ms=MINUTE_MS, limit=9)
    assert {one.domain for one in failures.put_off} == {"y.test"}


def test_what_failed_is_counted_and_listed(store: Store) -> None:
    start_ms = NOW_MS - 10 * MINUTE_MS
    add(store, R.BOUNCED, to0="anna@X.test", ago_ms=11 * MINUTE_MS)
    old = add(store, R.BOUNCED, R.EXPIRED, R.DELIVERED, to0="anna@X.test", ago_ms=9 * MINUTE_MS)
    new = add(store, R.BOUNCED, to0="ben@y.test")
    one = put_off(store, "cid@z.test", "dan@z.test", "eve@x.test")
    failures = store.queue.failures(start_ms, step_ms=5 * MINUTE_MS, limit=9)
    assert failures.final_since_ms == failures.put_off_since_ms == start_ms
    assert failures.ended == {(0, ""): 2, (2, ""): 1}
    final = [(each.queue_id, each.domain) for each in failures.final]
    assert sorted(final) == sorted([(old, "x.test"), (old, "cust.test"), (new, "y.test")])
    assert sorted(failures.put_off) == [
        Failure(one, "main", "x.test", "451 wait"),
        Failure(one, "main", "z.test", "451 wait"),
    ]


def test_of_many_failures_the_newest_are_listed_with_their_time(store: Store) -> None:
    for ago in range(8):
        add(store, R.BOUNCED, ago_ms=ago * MINUTE_MS)
    put_off(store, at_ms=NOW_MS - 7 * MINUTE_MS)
    failures = store.queue.failures(0, step_ms=10**9, limit=3)
    assert failures.ended.total() == 8
    assert len(failures.final) == 3
    assert len(failures.put_off) == 1
    assert failures.put_off_since_ms == 0
    listed = found(store, R.BOUNCED, R.EXPIRED, since_ms=failures.final_since_ms)
    assert sorted(listed) == sorted(one.queue_id for one in failures.final)
