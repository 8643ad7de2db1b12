"""What every store must do with counts of classes of mail, and with mail that a check holds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from relaygw.mail.clock import HOUR_MS
from relaygw.mail.envelope import NewRecipient
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.mail_class import OTHER_SUBJECTS, ClassCount, MailClass, elsewhere, others_of
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store import sources
from relaygw.store.store import Store, open_store
from tests.builders import NOW_MS, accepted
from tests.contract.conftest import clock_at
from tests.contract.test_store_contract import claim

SOURCE = ("10.0.0.5", "127.0.0.1:25", "", 33, "60:index.php")
NOON_MS = NOW_MS - NOW_MS % HOUR_MS


def class_of(template: str, *, host: str = "10.0.0.5") -> MailClass:
    return MailClass.of(
        (host, *SOURCE[1:]), sender_domain="shop.test", template=template, stream="transactional"
    )


def seen(mail_class: MailClass, *at_ms: int, recipients: int = 1) -> ClassCount:
    count = ClassCount(mail_class, at_ms[0])
    for one in at_ms:
        count.add(one, recipients, 0)
    return count


def test_counts_of_several_fronts_add_up(store: Store) -> None:
    order = class_of("Order #")
    first, second = NOON_MS + 1000, NOON_MS + 61_000
    store.sources.count_mail([seen(order, first, first + 5000, recipients=2)])
    store.sources.count_mail([seen(order, second), seen(class_of("Login"), second)])
    store.sources.count_mail([seen(order, second + HOUR_MS)])
    known = {one.mail_class.template: one for one in store.sources.known_classes()}
    assert known["Order #"].mail_class == order
    assert (known["Order #"].first_seen_ms, known["Order #"].messages) == (first, 4)
    assert known["Order #"].last_seen_ms == second + HOUR_MS
    assert list(known) == ["Order #", "Login"]  # the latest first
    hours = store.sources.class_hours(NOON_MS, class_ids=[order.class_id])
    assert [(one.hour_at_ms, one.messages, one.recipients) for one in hours] == [
        (NOON_MS, 3, 5),
        (NOON_MS + HOUR_MS, 1, 1),
    ]
    # the longest wait for one, whoever counted the one before
    assert [one.gap_ms for one in hours] == [55_000, HOUR_MS]
    (by_uid,) = store.sources.sum_mail("uid", NOON_MS)
    assert (by_uid.key, by_uid.classes, by_uid.messages, by_uid.total) == (33, 2, 5, 5)
    assert (by_uid.busiest_hour, by_uid.first_seen_ms) == (4, first)
    assert [one.messages for one in store.sources.sum_mail("class_id", NOON_MS)] == [4, 1]
    assert store.sources.sum_mail("user", NOON_MS + 2 * HOUR_MS) == []
    assert len(store.sources.class_hours(NOON_MS, until_ms=NOON_MS + HOUR_MS)) == 2


def test_what_is_too_much_for_a_source_is_counted_as_one(store: Store) -> None:
    many = [seen(class_of(f"Subject {n}"), NOON_MS) for n in range(250)]
    folded = store.sources.count_mail(many)
    assert len(folded) == 50
    others = others_of(SOURCE, "transactional")
    known = {one.mail_class: one.messages for one in store.sources.known_classes()}
    assert (len(known), known[others]) == (201, 50)
    assert others.template == OTHER_SUBJECTS
    # what is known is counted as ever
    assert store.sources.count_mail(many[:1]) == set()


def test_the_whole_is_bounded_and_makes_room_for_new(store: Store, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(sources, "MAX_CLASSES", 20)
    many = [seen(class_of("Spam", host=f"10.0.1.{n}"), NOON_MS) for n in range(60)]
    store.sources.count_mail(many)
    known = store.sources.known_classes()
    assert (len(known), sum(one.messages for one in known)) == (21, 60)
    with clock_at(store, NOON_MS + 49 * HOUR_MS):
        assert not store.sources.forget_sources()
    assert len(store.sources.known_classes()) == 18
    with clock_at(store, NOON_MS + sources.KEPT_MS + 2 * HOUR_MS):
        while store.sources.forget_sources():
            pass
    assert store.sources.known_classes() == []
    assert store.sources.class_hours(0) == []


def test_a_known_source_keeps_its_name_where_the_whole_is_full(store: Store, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(sources, "MAX_CLASSES", 2)
    known, strange = "10.0.1.1", "10.0.1.2"
    store.sources.count_mail([seen(class_of("Order #", host=known), NOON_MS)])
    store.sources.count_mail([seen(class_of("Order #"), NOON_MS)])
    late = [seen(class_of("Login", host=host), NOON_MS) for host in (known, strange)]
    store.sources.count_mail(late)
    classes = {one.mail_class for one in store.sources.known_classes()}
    assert others_of((known, *SOURCE[1:]), "transactional") in classes
    assert elsewhere("transactional") in classes
    assert len(classes) == 4


def test_a_clock_that_was_wrong_does_no_lasting_harm(store: Store) -> None:
    order = class_of("Order #")
    for at_ms in (NOON_MS + 400 * 24 * HOUR_MS, NOON_MS):
        with clock_at(store, at_ms):
            store.sources.count_mail([seen(order, at_ms)])
    with clock_at(store, NOON_MS):
        (known,) = store.sources.known_classes()
        assert (known.first_seen_ms, known.last_seen_ms) == (NOON_MS, NOON_MS)
        assert store.sources.forget_sources()
        assert not store.sources.forget_sources()
    assert [one.hour_at_ms for one in store.sources.class_hours(0)] == [NOON_MS]


def test_of_too_many_hours_the_oldest_go(store: Store, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    hours = [NOON_MS - n * HOUR_MS for n in range(3)]
    store.sources.count_mail([seen(class_of("Order #"), at_ms) for at_ms in hours])
    with clock_at(store, NOON_MS):
        assert not store.sources.forget_sources()
        monkeypatch.setattr(sources, "MAX_HOURS", 2)
        assert store.sources.forget_sources()
        assert not store.sources.forget_sources()
    assert {one.hour_at_ms for one in store.sources.class_hours(0)} == set(hours[:2])


def test_fronts_that_count_at_once_neither_lose_nor_wait_for_each_other(
    store: Store, url: str
) -> None:
    many = [class_of(f"Subject {letter}") for letter in "abcdefghijklmnopqrst"]

    def count(number: int) -> None:
        own = open_store(url)
        for _ in range(10):
            mixed = many[number:] + many[:number]
            own.sources.count_mail([seen(one, NOON_MS + number) for one in mixed])
        own.close()

    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(count, (0, 5, 10, 15)))
    assert [one.messages for one in store.sources.known_classes()] == [40] * 20


def test_held_mail_is_never_claimed_and_what_is_captured_stays_so(store: Store) -> None:
    captured = NewRecipient(address="c@x.test", state=RecipientState.CAPTURED)
    hold = HoldCause(HoldCode.GUARD, "0f 40 mails of a new script")
    held = accepted("b@cust.test", captured, holds=(hold,))
    only_captured = accepted(captured, holds=(hold,))
    free = accepted()
    store.intake.accept_batch([held, only_captured, free])
    assert [one.queue_id for one in claim(store)] == [free.queue_id]
    found = {
        one.queue_id: one for one in store.queue.entries([held.queue_id, only_captured.queue_id])
    }
    (part,) = found[held.queue_id].deliveries
    assert (part.state, part.hold) == (DeliveryState.HELD, hold)
    states = {one.address: one.state for one in found[held.queue_id].recipients}
    assert states == {"b@cust.test": RecipientState.PENDING, "c@x.test": RecipientState.CAPTURED}
    (part,) = found[only_captured.queue_id].deliveries
    assert part.state is DeliveryState.FINISHED
