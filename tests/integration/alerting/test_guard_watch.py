"""The guard at work on a queue: sale days, shops that move, two watches, holds that ended."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from relaygw.alerting.facts import Finding
from relaygw.alerting.guard import GuardWatch
from relaygw.alerting.guard_words import learning_finding
from relaygw.alerting.notifier import Notifier, Receiver
from relaygw.alerting.watch import incident_of, reworded
from relaygw.mail.clock import DAY_MS, HOUR_MS, clock_ms, utc_text
from relaygw.mail.envelope import Source
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.mail_class import ClassCount, MailClass, MailSource
from relaygw.mail.state import DeliveryState
from relaygw.operations.guard import ALLOW, HOLD, RELEASE
from relaygw.operations.verb import Asked, Verb
from relaygw.settings.alerts import Rule
from relaygw.settings.guard import Guard
from relaygw.settings.model import Settings
from relaygw.store.audit import AuditEntry
from relaygw.store.guard import GuardAction, GuardEntry
from relaygw.store.selection import Selection
from relaygw.store.store import Store
from tests.builders import accepted
from tests.integration.alerting.watch_rig import Recording

SHOP: MailSource = ("local", "", "", 33, "33:shop.php")
SMTP = (":25", "", None, "")
HELD = Selection(states=frozenset({DeliveryState.HELD}))


@pytest.fixture(autouse=True)
def never_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a look that took long on a busy machine be made again all the same."""
    monkeypatch.setattr("relaygw.alerting.guard._LONG_S", float("inf"))


def guard(store: Store, **more: Any) -> GuardWatch:
    settings = {"mode": "sandbox", "guard": {"action": "hold", **more}}
    return GuardWatch(store, Settings.model_validate(settings))


def count(
    store: Store,
    messages: int,
    *ago_h: int,
    source: MailSource = SHOP,
    template: str = "Order #",
    recipients: int | None = None,
) -> MailClass:
    orders = MailClass.of(
        source, sender_domain="shop.test", template=template, stream="transactional"
    )
    hours = [clock_ms() - ago * HOUR_MS for ago in ago_h]
    counts = [ClassCount(orders, at_ms, at_ms, messages, recipients or messages) for at_ms in hours]
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
        (("10.0.0.7", ":25", "", None, ""), []),  # a new server that speaks SMTP
        (("10.0.0.7", ":25", "up", None, ""), ["source_new"]),
        (("local", "", "", 33, "33:up.php"), ["source_new"]),
        (("local", "", "", 48, "33:shop.php"), ["source_new"]),
    ],
)
def test_orders_of_a_shop_that_moves_are_never_held(
    store: Store, source: MailSource, told: list[str]
) -> None:
    is_smtp = source[1] != ""
    count(store, 110, 100, 48, source=("10.0.0.5", ":25", "", None, "") if is_smtp else SHOP)
    order(store, source)
    count(store, 400, 0, source=source)
    found = guard(store).look([], now_ms=clock_ms())
    assert [one.rule.value for one in found] == told
    assert store.queue.search(HELD, limit=9) == []


def test_on_its_first_day_a_queue_tells_once_that_it_learns(store: Store) -> None:
    count(store, 3, 0, source=("10.0.0.7", ":25", "", None, ""))
    watch = guard(store)
    assert watch.look([], now_ms=clock_ms()) == [], "a first mail is nothing to tell of"
    count(store, 90, 0)
    (finding,) = watch.look([], now_ms=clock_ms())
    begun_ms = store.guard.counting_since_ms()
    assert begun_ms is not None
    until = utc_text(begun_ms + DAY_MS, "%Y-%m-%d %H:%M")
    assert finding.rule is Rule.GUARD_LEARNING
    assert finding.summary == (
        "the guard is learning who sends here: 2 sources so far; from "
        f"{until} on it tells of what is new"
    )
    assert "more than 120 mails an hour of something that came late, or 2000" in finding.remedy
    told = [incident_of(finding, clock_ms())]
    later_ms = begun_ms + 20 * HOUR_MS
    assert [one.kind for one in watch.look(told, now_ms=later_ms)] == [finding.kind], "goes on"
    assert watch.look(told, now_ms=begun_ms + DAY_MS) == []
    assert store.guard.guard_entries() == []


def test_the_shop_that_follows_a_test_mail_is_no_flood(store: Store) -> None:
    count(store, 1, 9, source=("127.0.0.1", ":25", "", None, ""), template="Test of relaygw")
    count(store, 400, 0)
    assert [one.rule.value for one in guard(store).look([], now_ms=clock_ms())] == [
        "guard_learning"
    ]
    count(store, 400, 0, source=("local", "", "", 33, "33:up.php"), template="Win #")
    next_hour_ms = (clock_ms() // HOUR_MS + 1) * HOUR_MS
    assert [one.rule.value for one in guard(store).look([], now_ms=next_hour_ms)] == [
        "guard_learning"
    ], "it came in the same hour"
    assert store.guard.guard_entries() == []


def test_nobody_is_told_that_the_first_day_is_over(store: Store) -> None:
    now_ms = clock_ms()
    notice = incident_of(learning_finding(3, now_ms, Guard()), now_ms)
    assert store.watch.open_incident(notice)
    channel = Recording()
    settings = Settings.model_validate({"mode": "sandbox"})

    async def tell() -> None:
        receivers = [Receiver("ops", channel, frozenset())]
        notifier = Notifier(settings, receivers, store, print)
        notifier.notify(await asyncio.to_thread(store.watch.incidents, 0), now_ms=now_ms)
        await notifier.drain(60)

    asyncio.run(tell())
    store.watch.end_incident(notice.incident_id, at_ms=now_ms)
    asyncio.run(tell())
    assert channel.states == [("", "begun")]


def test_a_new_channel_is_not_told_what_was_changed_before_it(store: Store) -> None:
    now_ms, channel = clock_ms(), Recording()
    settings = Settings.model_validate({"mode": "sandbox"})
    for key, age_ms in (("an old change", 300_000), ("its own", 5_000)):
        change = Finding(Rule.CONFIG_CHANGED, key, key, "nothing", now_ms - age_ms)
        assert store.watch.open_incident(incident_of(change, now_ms - age_ms))

    async def tell() -> None:
        notifier = Notifier(settings, [Receiver("ops", channel, frozenset())], store, print)
        notifier.notify(await asyncio.to_thread(store.watch.incidents, 0), now_ms=now_ms)
        await notifier.drain(60)

    asyncio.run(tell())
    assert channel.states == [("its own", "begun")]


def test_a_flood_on_the_first_day_is_told_of_and_held(store: Store) -> None:
    count(store, 90, 3, 2, 1)
    count(store, 121, 0, template="Win #")
    found = {one.rule.value: one for one in guard(store).look([], now_ms=clock_ms())}
    assert sorted(found) == ["guard_learning", "source_new"]
    assert "121 messages of 1 new template within an hour, more than 120" in (
        found["source_new"].summary
    )
    assert "it is held" in found["source_new"].remedy
    assert [one.action for one in store.guard.guard_entries()] == [GuardAction.HOLD]


def test_a_host_of_a_fleet_that_sends_more_than_all_of_it_is_told_of(store: Store) -> None:
    for host in ("local", "10.0.0.6"):
        count(store, 20, 100, 48, source=(host, "", "", 33, "33:shop.php"))
    source = ("10.0.0.7", "", "", 33, "33:shop.php")
    order(store, source)
    count(store, 200, 0, source=source)
    (finding,) = guard(store).look([], now_ms=clock_ms())
    assert finding.rule.value == "source_volume"
    assert "usual is less than 160" in finding.summary, "four times what both sent"
    assert store.queue.search(HELD, limit=9) == []


def test_new_scripts_of_a_user_are_told_of_together_and_held(store: Store) -> None:
    count(store, 20, 100, 50)
    for name in "abc":
        count(store, 12, 0, source=("local", "", "", 48, f"48:{name}.php"), template="Win #")
    watch = guard(store)
    for _ in range(2):
        (finding,) = watch.look([], now_ms=clock_ms())
        assert "36 messages of 3 new templates of 3 new scripts within an hour" in finding.summary
        assert "it is held" in finding.remedy
        assert len(store.guard.guard_entries()) == 3


def test_few_mails_to_very_many_are_told_of_with_their_recipients(store: Store) -> None:
    count(store, 20, 100, 50)
    count(store, 29, 0, template="Win #", recipients=29_000)
    (finding,) = guard(store).look([], now_ms=clock_ms())
    assert (
        "29 messages of 1 new template, whose recipients count as 5800, within an hour"
        in finding.summary
    )


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


@pytest.mark.parametrize(("action", "within_ms"), [("hold", 3_000), ("off", 30_000)])
def test_a_hold_that_was_killed_before_it_held_mail_is_finished_by_the_watch(
    store: Store, action: str, within_ms: int
) -> None:
    orders = count(store, 5, 1)
    watch = guard(store, action=action)
    watch.look([], now_ms=clock_ms())
    order(store)
    now_ms = clock_ms()
    new = GuardEntry(
        target=orders.class_id,
        source_id=orders.source_id,
        action=GuardAction.HOLD,
        label="orders",
        reason="operator ann",
        actor="ann",
        at_ms=now_ms,
    )
    entry = AuditEntry(
        at_ms=now_ms, actor="ann", action="guard.hold", target=new.target, affected=1, detail=""
    )
    store.guard.put_guard_entry(new, entry=entry, is_renewing=True)  # what the verb does first
    watch.look([], now_ms=now_ms + 1)
    assert store.queue.search(HELD, limit=9) == []
    watch.look([], now_ms=now_ms + 1 + within_ms)
    (held,) = store.queue.search(HELD, limit=9)
    assert held.deliveries[0].hold == HoldCause(HoldCode.GUARD, f"{new.target} operator ann")


def ask(store: Store, verb: Verb, **given: Any) -> None:
    settings = Settings.model_validate({"mode": "sandbox", "guard": {"action": "alert"}})
    verb.carry_out(given, Asked(store=store, settings=settings, actor="ann", now_ms=clock_ms()))


def allow(store: Store, target: str, per_hour: int) -> None:
    ask(store, ALLOW, id=target, per_hour=per_hour)


def test_what_is_allowed_is_never_said_to_be_held(store: Store) -> None:
    spam: MailSource = ("local", "", "", 48, "48:up.php")
    count(store, 20, 100)
    one = count(store, 120, 0, source=spam)
    order(store, spam)
    allow(store, one.source_id, 40)
    watch = guard(store)
    (finding,) = watch.look([], now_ms=clock_ms())
    assert "more than 40" in finding.summary
    assert "it was allowed, so all of it is sent" in finding.remedy
    assert "is held" not in finding.remedy
    assert store.queue.search(HELD, limit=9) == []
    allow(store, one.source_id, 400)
    assert watch.look([], now_ms=clock_ms()) == []


def test_no_class_of_a_source_that_is_allowed_is_held(store: Store) -> None:
    one = count(store, 20, *range(15 * 24, 0, -1))
    count(store, 1000, 0)
    allow(store, one.source_id, 40)
    (finding,) = guard(store).look([], now_ms=clock_ms())
    assert "it was allowed" in finding.remedy
    assert [entry.action for entry in store.guard.guard_entries()] == ["allow"]


def test_mail_that_short_lived_hosts_sent_is_not_said_to_be_held(store: Store) -> None:
    for host in range(12):  # each for eight hours, without a script
        count(store, 40, *range(host * 8 + 8, host * 8, -1), source=(f"10.0.1.{host}", *SMTP))
    count(store, 60, 0, source=("10.0.1.99", *SMTP))
    found = guard(store).look([], now_ms=clock_ms())
    assert all("nothing of it is held" in one.remedy for one in found)
    assert store.guard.guard_entries() == []


def test_what_is_told_of_a_source_is_true_while_it_lasts(store: Store) -> None:
    count(store, 20, 100)
    spam: MailSource = ("local", "", "", 48, "48:up.php")
    one = count(store, 40, 0, source=spam)
    order(store, spam)
    watch = guard(store, action="alert")
    (first,) = watch.look([], now_ms=clock_ms())
    assert "recipients at cust.test" in first.summary
    assert f"relaygw guard hold {one.class_id} holds it" in first.remedy
    ask(store, HOLD, id=one.class_id)
    count(store, 30, 0, source=spam)
    incident = incident_of(first, clock_ms())
    (now,) = watch.look([incident], now_ms=clock_ms())
    assert now.summary == first.summary.replace("40 messages", "70 messages")
    assert f"it is held, other mail flows on: relaygw queue list --reason {one.class_id}" in (
        now.remedy
    )
    assert reworded([incident], [now]) == [
        replace(incident, summary=now.summary, remedy=now.remedy)
    ]
    assert reworded([incident], [first]) == []
    assert store.watch.open_incident(incident)
    ask(store, RELEASE, id=one.source_id)
    assert store.queue.search(HELD, limit=9) == []
    assert not watch.is_let_go(incident)
    watch._due_s = float("inf")  # a slow look is not made again soon, else
    assert watch.look([incident], now_ms=clock_ms()) == [], "who was told of it let it go"
    assert watch.is_let_go(incident)


def test_refused_recipients_are_not_told_of_any_more_once_a_source_is_allowed(
    store: Store,
) -> None:
    one = count(store, 20, *range(15 * 24, 0, -1))
    at_ms = clock_ms()
    store.sources.count_mail([ClassCount(one, at_ms, at_ms, 1, 30, 20)])
    watch = guard(store)
    (finding,) = watch.look([], now_ms=at_ms)
    assert "recipients refused" in finding.summary
    allow(store, one.source_id, 400)
    assert watch.look([incident_of(finding, at_ms)], now_ms=at_ms) == []
