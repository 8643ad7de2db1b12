"""Mail by what became of it, on every database: which, of when, in which order, and how many."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from sqlalchemy import update

from relaygw.mail.envelope import NewDelivery, NewRecipient, Source
from relaygw.mail.queue_id import QueueIdSource
from relaygw.mail.state import RESULTS, DeliveryState, RecipientState
from relaygw.store.queue_tables import recipient
from relaygw.store.selection import Selection
from relaygw.store.store import Store
from tests.builders import NOW_MS, accepted, selected

R = RecipientState
EVERY = frozenset(DeliveryState)
HOUR_MS = 3_600_000
MINUTE_MS = 60_000
_steps = itertools.count()


def add(store: Store, *results: R, ago_ms: int = 0, took_ms: int = 0, **more: Any) -> str:
    """Store a message with a recipient for each result, which they came to `took_ms` later."""
    at_ms = NOW_MS - ago_ms
    people = tuple(
        NewRecipient(address=more.pop(f"to{n}", f"{n}.{result}@cust.test"), state=result)
        for n, result in enumerate(results)
    )
    part = NewDelivery(route="default", stream="transactional", recipients=people)
    queue_id = QueueIdSource().next_id(at_ms + next(_steps))
    message = accepted(at_ms=at_ms, queue_id=queue_id, deliveries=(part,), **more)
    store.intake.accept_batch([message])
    ended = update(recipient).where(recipient.c.queue_id == message.queue_id)
    with store.database.write() as tx:
        tx.execute(ended.values(changed_at_ms=at_ms + took_ms))
    return message.queue_id


def found(store: Store, *results: R, newest_first: bool = True, **more: Any) -> list[str]:
    selection = selected(results=frozenset(results), **{"states": EVERY, **more})
    ids = store.queue.search_ids(selection, limit=100, newest_first=newest_first)
    entries = store.queue.search(selection, limit=100, newest_first=newest_first)
    assert [entry.queue_id for entry in entries] == ids
    return ids


def test_each_result_finds_its_messages_newest_first(store: Store) -> None:
    ids = {result: [add(store, result, ago_ms=9), add(store, result)] for result in RESULTS}
    waits = add(store, R.PENDING)
    for result, (old, young) in ids.items():
        assert found(store, result) == [young, old]
        assert found(store, result, newest_first=False) == [old, young]
    mixed = add(store, R.DELIVERED, R.DELIVERED, R.BOUNCED)
    assert found(store, R.DELIVERED)[0] == found(store, R.BOUNCED)[0] == mixed
    assert len(found(store, R.BOUNCED, R.EXPIRED)) == 5
    assert len(found(store, *RESULTS)) == 13
    assert waits not in found(store, *RESULTS)


@pytest.mark.parametrize("result", RESULTS)
def test_pages_follow_one_another(store: Store, result: R) -> None:
    ids = [add(store, result, result, ago_ms=50 - number) for number in range(10)]
    for newest_first in (True, False):
        selection = Selection(results=frozenset({result}), states=EVERY)
        seen: list[str] = []
        while page := store.queue.search_ids(
            selection, limit=3, after=seen[-1] if seen else "", newest_first=newest_first
        ):
            seen += page
        assert seen == (ids[::-1] if newest_first else ids)


@pytest.mark.parametrize("result", [one for one in RESULTS if one is not R.CAPTURED])
def test_times_are_those_of_the_result(store: Store, result: R) -> None:
    """It was accepted 5 hours ago, and came to its end 2 hours ago."""
    late = add(store, result, ago_ms=5 * HOUR_MS, took_ms=3 * HOUR_MS)
    at_once = add(store, result, ago_ms=5 * HOUR_MS)
    two_hours = NOW_MS - 2 * HOUR_MS
    assert found(store, result, since_ms=two_hours) == [late]
    assert found(store, result, since_ms=two_hours + 1) == []
    assert found(store, result, until_ms=two_hours) == [at_once, late]
    assert found(store, result, until_ms=two_hours - 1) == [at_once]
    assert found(store, since_ms=NOW_MS - 5 * HOUR_MS, newest_first=False) == [late, at_once]
    assert found(store, since_ms=two_hours) == []


def test_captured_mail_has_the_time_of_its_capture(store: Store) -> None:
    old, young = add(store, R.CAPTURED, ago_ms=HOUR_MS), add(store, R.CAPTURED)
    assert found(store, R.CAPTURED, since_ms=NOW_MS - MINUTE_MS) == [young]
    assert found(store, R.CAPTURED, until_ms=NOW_MS - MINUTE_MS) == [old]
    assert found(store, R.CAPTURED, recipient="0.captured") == [young, old]
    assert found(store, R.CAPTURED, recipient="0.delivered") == []


def test_conditions_on_a_recipient_are_about_that_one(store: Store) -> None:
    here = add(store, R.BOUNCED, R.DELIVERED, to0="anna@x.test", to1="ben@x.test")
    there = add(store, R.DELIVERED, R.BOUNCED, to0="anna@x.test", to1="ben@x.test")
    assert found(store, R.BOUNCED, recipient="ANNA@") == [here]
    assert found(store, R.DELIVERED, recipient="anna@") == [there]
    assert found(store, recipient="anna@") == [there, here]


def test_a_domain_is_a_whole_one_and_a_provider_that_of_the_recipient(store: Store) -> None:
    here = add(store, R.BOUNCED, R.DELIVERED, to0="anna@X.test", to1="ben@x.test.example")
    there = add(store, R.BOUNCED, to0="anna@sub.x.test")
    assert found(store, R.BOUNCED, domain="x.TEST") == found(store, domain="x.test") == [here]
    assert found(store, R.DELIVERED, domain="x.test") == []
    with store.database.write() as tx:
        mine = (recipient.c.queue_id == here) & (recipient.c.rcpt_no == 0)
        tx.execute(update(recipient).where(mine).values(provider="main"))
    assert found(store, R.BOUNCED, provider="main") == [here]
    assert found(store, R.DELIVERED, provider="main") == []
    assert there not in found(store, provider="main")


def test_where_it_came_from(store: Store) -> None:
    source = Source(client="10.0.0.1", host="Web1.shop.test", uid=33, script="/srv/Shop/cron.php")
    wanted = add(store, R.BOUNCED, source=source)
    add(store, R.BOUNCED, source=Source(host="web12.shop.test", uid=3, script="/srv/blog.php"))
    for one in ({"host": "web1.SHOP.test"}, {"uid": 33}, {"script": "shop/cron"}):
        assert found(store, R.BOUNCED, **one) == [wanted]
        assert found(store, **one) == [wanted]
    assert found(store, R.BOUNCED, client="10.0.0.1", subject="x", route="default") == [wanted]
    assert found(store, R.BOUNCED, route="other") == []


def test_ids_and_results_must_both_hold(store: Store) -> None:
    one, two = add(store, R.BOUNCED), add(store, R.DELIVERED)
    for result, wanted in ((R.BOUNCED, one), (R.DELIVERED, two), (R.CAPTURED, None)):
        assert found(store, result, queue_ids=(one, two)) == ([wanted] if wanted else [])


def test_rare_results_are_counted_by_recipient_since_a_time(store: Store) -> None:
    add(store, R.BOUNCED, R.BOUNCED, R.DELIVERED)
    add(store, R.BOUNCED, ago_ms=HOUR_MS)
    add(store, R.EXPIRED, ago_ms=2 * HOUR_MS, took_ms=HOUR_MS)
    add(store, R.CANCELLED, ago_ms=2 * HOUR_MS)
    add(store, R.CAPTURED)
    counts = store.queue.count_results(NOW_MS - HOUR_MS)
    assert dict(counts) == {R.BOUNCED: 3, R.EXPIRED: 1}
