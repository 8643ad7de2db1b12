"""Silence as the watch finds it, on both databases: times are an argument, nothing waits."""

from __future__ import annotations

from typing import Any

from relaygw.alerting.facts import Finding
from relaygw.alerting.silence import SilenceWatch
from relaygw.mail.clock import clock_ms
from relaygw.mail.mail_class import ClassCount, MailClass
from relaygw.observe.history import Series
from relaygw.settings.model import Settings
from relaygw.store.store import Store
from relaygw.store.watch import Incident
from tests.builders import instance

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
DOMAIN = "shop.test transactional"


def settings(**more: Any) -> Settings:
    return Settings.model_validate(
        {
            "mode": "production",
            "listeners": [{"bind": "127.0.0.1:25"}],
            "providers": {"main": {"host": "smtp.example.com"}},
            "routes": [{"name": "default", "providers": ["main"]}],
            **more,
        }
    )


def count(store: Store, *at_ms: int, template: str = "Your order #") -> None:
    """Count mail as the front does; each time comes from a host of its own."""
    counts = []
    for number, one in enumerate(at_ms):
        mail_class = MailClass.of(
            (f"10.0.0.{number % 200}", "", "", 33, "checkout.php"),
            sender_domain="shop.test",
            template=template,
            stream="transactional",
        )
        counts.append(ClassCount(mail_class, one, one, 1, 1))
    store.rhythms.count_kinds(counts)


def watch_at(store: Store, *at_ms: int) -> None:
    for one in at_ms:
        store.watch.add_history(one, {(Series.QUEUE.value, "deferred"): 0}, are_gauges=True)


def kinds(findings: list[Finding]) -> list[tuple[str, str]]:
    return [one.kind for one in findings]


def incident(finding: Finding) -> Incident:
    return Incident(
        incident_id="i",
        rule=finding.rule.value,
        key=finding.key,
        summary=finding.summary,
        remedy=finding.remedy,
        since_ms=finding.since_ms or 0,
    )


def test_mail_that_stops_is_told_and_its_return_too(store: Store) -> None:
    last_ms = clock_ms() - 50 * MINUTE_MS
    count(store, *(last_ms - hours * HOUR_MS // 4 for hours in range(4 * 24 * 20, -1, -1)))
    up_ms = [last_ms - DAY_MS + five * 5 * MINUTE_MS for five in range(300)]
    watch_at(store, *up_ms)
    watch = SilenceWatch(store, settings())
    assert watch.look([], now_ms=last_ms + 50 * MINUTE_MS) == []
    now_ms = last_ms + 60 * MINUTE_MS  # 4 x 15 minutes
    (found,) = watch.look([], now_ms=now_ms)
    assert found.kind == ("silence", DOMAIN)
    assert found.since_ms == last_ms
    assert found.summary == (
        "no transactional mail of shop.test came for 1h; the longest usual pause at this time is "
        "15m"
    )
    again = SilenceWatch(store, settings())
    assert kinds(again.look([incident(found)], now_ms=now_ms)) == [found.kind], "after a restart"
    assert SilenceWatch(store, settings(silence={"enabled": False})).look([], now_ms=now_ms) == []
    count(store, *(now_ms + second * 1000 for second in range(3)))
    assert watch.look([incident(found)], now_ms=now_ms + MINUTE_MS) == []


def test_a_gateway_that_was_down_does_not_blame_the_shop(store: Store) -> None:
    """Its clients could not hand over anything: silence counts from when it is back."""
    last_ms = clock_ms() - 3 * HOUR_MS
    count(store, *(last_ms - hours * HOUR_MS // 4 for hours in range(4 * 24 * 20, -1, -1)))
    watch_at(store, last_ms - 5 * MINUTE_MS, last_ms, last_ms + 2 * HOUR_MS)
    watch = SilenceWatch(store, settings())
    assert watch.look([], now_ms=last_ms + 2 * HOUR_MS + 10 * MINUTE_MS) == []
    watch_at(store, *(last_ms + 2 * HOUR_MS + five * 5 * MINUTE_MS for five in range(13)))
    assert kinds(watch.look([], now_ms=last_ms + 3 * HOUR_MS + 5 * MINUTE_MS)) == [
        ("silence", DOMAIN)
    ]


def test_promised_mail_is_missed_a_day_after_the_first_look(store: Store) -> None:
    now_ms = clock_ms()
    expecting = settings(
        silence={"enabled": False},
        expect=[
            {"subject": "*ORDER*", "at_least": "5/d"},
            {"subject": "*invoice*", "at_least": "1/d"},
        ],
    )
    watch = SilenceWatch(store, expecting)
    store.instances.register(instance("f1", role="front"))
    watch_at(store, now_ms - 2 * DAY_MS, now_ms)
    assert watch.look([], now_ms=now_ms) == [], "no mail yet, and the front has just begun"
    (order, invoice) = watch.look([], now_ms=now_ms + DAY_MS + MINUTE_MS)
    assert order.kind == ("silence", "expect *ORDER*")
    assert order.summary == ("0 messages “*ORDER*” came within 24 hours, at least 5 are expected")
    count(store, *(now_ms + hours * HOUR_MS for hours in range(1, 24, 4)))
    assert kinds(watch.look([], now_ms=now_ms + DAY_MS + 2 * MINUTE_MS)) == []
    later_ms = now_ms + DAY_MS + 2 * HOUR_MS
    assert kinds(watch.look([], now_ms=later_ms)) == [invoice.kind]
