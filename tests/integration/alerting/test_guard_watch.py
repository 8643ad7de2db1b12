"""The guard at work on a queue: sale days, shops that move, two watches, holds that ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from relaygw.alerting.guard import GuardWatch
from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import Source
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.mail_class import MailClass, MailSource
from relaygw.mail.state import DeliveryState
from relaygw.policy.mail_counts import HOUR_MS
from relaygw.settings.model import Settings
from relaygw.store.selection import Selection
from relaygw.store.sources import ClassCount
from relaygw.store.store import Store, open_store
from tests.builders import accepted

SHOP: MailSource = ("local", "", "", 33, "33:shop.php")
HELD = Selection(states=frozenset({DeliveryState.HELD}))


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = open_store(url)
    yield store
    store.close()


def guard(store: Store, **more: Any) -> GuardWatch:
    settings = {"mode": "sandbox", "guard": {"action": "hold", **more}}
    return GuardWatch(store, Settings.model_validate(settings))


def count(store: Store, messages: int, *ago_h: int, source: MailSource = SHOP) -> MailClass:
    orders = MailClass.of(
        source, sender_domain="shop.test", template="Order #", stream="transactional"
    )
    hours = [clock_ms() - ago * HOUR_MS for ago in ago_h]
    counts = [ClassCount(orders, at_ms, at_ms, messages, messages) for at_ms in hours]
    for first in range(0, len(counts), 100):
        store.sources.count_mail(counts[first : first + 100])
    return orders


def order(store: Store, source: MailSource = SHOP) -> None:
    host, _, _, uid, script = source
    where = Source(client=None if host == "local" else host, uid=uid, script=script)
    mail = accepted(source=where, subject="Order 7", at_ms=clock_ms())
    store.intake.accept_batch([mail])


def test_no_order_of_a_sale_day_is_held(store: Store) -> None:
    count(store, 20, *range(15 * 24, 0, -1))
    order(store)
    count(store, 200, 0)
    (finding,) = guard(store).look([], now_ms=clock_ms())
    assert finding.rule.value == "source_volume"
    assert "messages within an hour, usual is less than 80" in finding.summary
    assert "relaygw guard allow" in finding.remedy
    assert store.queue.search(HELD, limit=9) == []


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (("10.0.0.7", "", "", 33, "33:shop.php"), []),  # another host
        (("local", "", "", 33, "34:shop.php"), []),  # another number
        (("local", "", "", 33, "33:up.php"), ["source_new"]),
        (("local", "", "", 48, "33:shop.php"), ["source_new"]),
    ],
)
def test_orders_of_a_shop_that_moves_are_never_held(
    store: Store, source: MailSource, told: list[str]
) -> None:
    count(store, 20, 100, 50)
    order(store, source)
    count(store, 400, 0, source=source)
    found = guard(store).look([], now_ms=clock_ms())
    assert [one.rule.value for one in found] == told
    assert store.queue.search(HELD, limit=9) == []


def test_two_watches_hold_a_source_once_and_what_is_left_of_a_hold_is_released(
    store: Store,
) -> None:
    count(store, 20, 100)
    spam: MailSource = ("local", "", "", 48, "48:up.php")
    count(store, 40, 0, source=spam)
    order(store, spam)
    for _ in range(2):
        (finding,) = guard(store).look([], now_ms=clock_ms())
        assert finding.is_certain
    actions = [one.action for one in store.audit.entries(limit=9)]
    assert sorted(actions) == ["guard.hold", "queue.hold"]
    (held,) = store.queue.search(HELD, limit=9)
    (entry,) = store.guard.guard_entries()
    assert held.deliveries[0].hold == HoldCause(
        HoldCode.GUARD, f"{entry.target} new templates of local uid 48 48:up.php"
    )
    # who releases it is faster than a front that holds on for a moment
    audited = replace(store.audit.entries(limit=1)[0], action="guard.release")
    assert store.guard.drop_guard_entry(entry.target, entry=audited)
    guard(store, action="off").look([], now_ms=clock_ms())
    assert store.queue.search(HELD, limit=9) == []
