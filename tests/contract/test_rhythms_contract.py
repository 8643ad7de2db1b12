"""What every store must do with counts of kinds of mail, whatever hosts they come from."""

from __future__ import annotations

import time

import pytest

from relaygw.mail.clock import HOUR_MS
from relaygw.mail.mail_class import ClassCount, MailClass, others_of
from relaygw.policy.rhythm import LEARNT_MS, MailHour, MailKind
from relaygw.policy.silence import LastMail
from relaygw.store import rhythms
from relaygw.store.store import Store

NOW_MS = time.time_ns() // 1_000_000
HOUR = NOW_MS // HOUR_MS - 24 * 30
BEGIN_MS = HOUR * HOUR_MS
ORDER = MailKind("shop#.test", "transactional", "Order #")


def mail(at_ms: int, *, host: str = "10.0.0.5", template: str = "Order #") -> ClassCount:
    mail_class = MailClass.of(
        (host, "", "", 33, ""),
        sender_domain=f"shop{host[-1]}.test",
        template=template,
        stream="transactional",
    )
    return ClassCount(mail_class, at_ms, at_ms, 1, 1)


def test_hosts_and_fronts_add_up_to_one_kind(store: Store) -> None:
    first, second = mail(BEGIN_MS + 1000), mail(BEGIN_MS + 61_000, host="10.0.0.7")
    store.rhythms.count_kinds([second, first])
    store.rhythms.count_kinds([mail(BEGIN_MS + 50_000), mail(BEGIN_MS + HOUR_MS + 1000)])
    store.rhythms.count_kinds([mail(BEGIN_MS + HOUR_MS + 2000, template="Login")])
    elsewhere = others_of(("10.0.0.5", "", "", 33, ""), "transactional")
    store.rhythms.count_kinds([ClassCount(elsewhere, BEGIN_MS, BEGIN_MS, 1, 1)])
    hours = store.rhythms.kind_hours([ORDER, ORDER.whole], BEGIN_MS)
    assert hours[ORDER] == [
        MailHour(HOUR, 3, 60_000),  # before it, nobody knows
        MailHour(HOUR + 1, 1, HOUR_MS - 60_000),
    ]
    assert [one.messages for one in hours[ORDER.whole]] == [3, 2]
    assert [one.hour for one in store.rhythms.kind_hours([ORDER], BEGIN_MS + HOUR_MS)[ORDER]] == [
        HOUR + 1
    ]
    assert store.rhythms.messages_by_template(BEGIN_MS + HOUR_MS) == {"Order #": 1, "Login": 1}
    assert store.rhythms.rhythmic() == {}  # too few yet
    for number in range(4):
        store.rhythms.count_kinds([mail(BEGIN_MS + (2 + number) * HOUR_MS)])
    known = {ORDER, ORDER.whole}
    assert store.rhythms.rhythmic().keys() == {ORDER, ORDER.whole} & known
    last_ms = BEGIN_MS + 5 * HOUR_MS
    assert store.rhythms.rhythmic()[ORDER] == LastMail(BEGIN_MS + 1000, last_ms, 8)


def test_kinds_are_bounded_and_forgotten(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rhythms, "MAX_KINDS", 12)
    store.rhythms.count_kinds([mail(NOW_MS - LEARNT_MS) for _ in range(9)])
    store.rhythms.count_kinds([mail(NOW_MS, template=f"flood {'x' * n}") for n in range(30)])
    kinds = [MailKind.of("shop5.test", "transactional", f"flood {'x' * n}") for n in range(30)]
    assert len(store.rhythms.kind_hours(kinds, NOW_MS - HOUR_MS)) == 10
    store.rhythms.count_kinds([mail(NOW_MS + 1000)])  # what is known is counted
    while store.rhythms.forget_kinds():
        pass
    assert len(store.rhythms.kind_hours([ORDER], 0)[ORDER]) == 2, "the smallest went"
    assert len(store.rhythms.kind_hours(kinds, NOW_MS - HOUR_MS)) == 8, "a tenth is room for new"
    rows = store.rhythms.kind_hours([ORDER, ORDER.whole, *kinds], 0).values()
    monkeypatch.setattr(rhythms, "MAX_HOURS", sum(map(len, rows)) - 1)
    while store.rhythms.forget_kinds():
        pass
    assert len(store.rhythms.kind_hours([ORDER], 0)[ORDER]) == 1, "the oldest hours went"
    while store.rhythms.forget_kinds(-HOUR_MS):
        pass
    assert store.rhythms.kind_hours([ORDER, *kinds], 0) == {}
