"""What every store must do with mail that comes again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import pytest

from relaygw.errors import AlreadyAccepted
from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import AcceptedMessage, NewRecipient
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.policy.storms import Storm
from relaygw.store.intake import insert_messages
from relaygw.store.queue_entry import delete_messages
from relaygw.store.repeats import ONCE_MS, Repeat, Repeated, taken_before
from relaygw.store.sandbox import uncapture
from relaygw.store.store import Store
from tests.builders import accepted, part_on
from tests.contract.conftest import clock_at

HOUR_MS = 3_600_000
SLICE_MS = 600_000


def repeat(queue_id: str, number: int, at_ms: int, **more: object) -> Repeat:
    one = Repeat(
        storm_id="5e",
        queue_id=queue_id,
        at_ms=at_ms,
        number=number,
        first_id="FIRST",
        earlier_id=None,
        is_held=False,
        host="10.0.0.5",
        script="up.php",
        template="Order #",
        recipient_domain="cust.test",
    )
    return one._replace(**more)


def count(store: Store, front: str, *repeats: Repeat) -> dict[str, int]:
    return store.repeats.count_repeats(
        front, repeats, watched=["5e", "none"], window_ms=HOUR_MS, slice_ms=SLICE_MS
    )


def stored(store: Store, *messages: AcceptedMessage) -> list[str]:
    """Return which of these are in the queue."""
    return [one.queue_id for one in store.queue.entries([one.queue_id for one in messages])]


def test_what_several_fronts_found_adds_up_and_ends_with_the_window(store: Store) -> None:
    now_ms = clock_ms()
    message = accepted(at_ms=now_ms)
    store.intake.accept_batch([message])
    with clock_at(store, now_ms):
        first, second = repeat("FIRST", 1, now_ms), repeat("SECOND", 2, now_ms)
        assert count(store, "a", first, second, second._replace(storm_id="6f")) == {}
        third = repeat(message.queue_id, 3, now_ms, is_held=True, earlier_id="SECOND")
        assert count(store, "b", third) == {"5e": 2}
        assert count(store, "a") == {"5e": 1}
        found = store.repeats.storms(HOUR_MS)
        assert found[0] == Storm(
            messages=3,
            held=1,
            same_ids=1,
            host="10.0.0.5",
            script="up.php",
            template="Order #",
            recipient_domain="cust.test",
            first_id="FIRST",
            last_id=max("SECOND", message.queue_id),
            first_ms=now_ms,
        )
        assert [one.messages for one in found] == [3, 1]
    with clock_at(store, now_ms + HOUR_MS):
        assert store.repeats.storms(HOUR_MS) == []
        assert count(store, "a") == {}
        assert not store.repeats.forget_repeats(2 * HOUR_MS)
        assert len(store.repeats.storms(9 * HOUR_MS)) == 2
    with clock_at(store, now_ms + 3 * HOUR_MS):
        assert not store.repeats.forget_repeats(2 * HOUR_MS)
        assert store.repeats.storms(9 * HOUR_MS) == []
    told = Repeated(number=3, first_id="FIRST", earlier_id="SECOND", again=0, again_ms=None)
    assert store.queue.record_of(message.queue_id).repeated == told
    with store.database.write() as tx:
        delete_messages(tx, [message.queue_id])
    assert store.queue.record_of(message.queue_id).repeated is None


def test_a_duplicate_is_taken_once_within_a_minute(store: Store) -> None:
    now_ms = clock_ms()
    first, twin, other = (accepted(at_ms=now_ms, mail_key=key) for key in ("k", "k", "z"))
    free = [accepted(at_ms=now_ms) for _ in range(2)]
    # in one batch
    assert store.intake.accept_batch([first, twin, other, *free]) == {twin.queue_id: first.queue_id}
    assert stored(store, first, twin, other, *free) == sorted(
        one.queue_id for one in (first, other, *free)
    )
    # in the next one, alone, and by a clock that was set back
    for at_ms in (now_ms + ONCE_MS, now_ms - ONCE_MS):
        again = accepted(at_ms=at_ms, mail_key="k")
        assert store.intake.accept_batch([again]) == {again.queue_id: first.queue_id}
        assert stored(store, again) == []
    record = store.queue.record_of(first.queue_id).repeated
    assert record is not None
    assert (record.number, record.again) == (0, 3)
    for at_ms in (now_ms + ONCE_MS + 1, now_ms - ONCE_MS - 1):  # by one that was hours wrong
        later = accepted(at_ms=at_ms, mail_key="k")
        assert store.intake.accept_batch([later]) == {}
        assert stored(store, later) == [later.queue_id]
    with clock_at(store, now_ms + 20 * ONCE_MS):
        assert not store.repeats.forget_repeats(HOUR_MS)
    again = accepted(at_ms=now_ms - ONCE_MS - 1, mail_key="k")
    assert store.intake.accept_batch([again]) == {}


def test_mail_that_somebody_did_not_get_may_be_sent_again_at_once(store: Store) -> None:
    blocked = NewRecipient(address="c@cust.test", state=RecipientState.BLOCKED)
    for _ in range(2):
        message = accepted("b@cust.test", blocked, at_ms=clock_ms(), mail_key="k")
        assert store.intake.accept_batch([message]) == {}
        assert stored(store, message) == [message.queue_id]


def test_mail_that_was_handed_over_minutes_apart_is_no_duplicate(store: Store) -> None:
    now_ms = clock_ms()
    ages = (4 * ONCE_MS, 0, 2 * ONCE_MS, 2 * ONCE_MS - 5, 9 * ONCE_MS)
    waited = [
        accepted(at_ms=now_ms, mail_key="k", handed_over_ms=now_ms - age, drop_id=f"d{age}")
        for age in ages
    ]
    assert store.intake.accept_batch(waited) == {waited[3].queue_id: waited[2].queue_id}
    later = accepted(at_ms=now_ms, mail_key="k", handed_over_ms=now_ms - 7 * ONCE_MS, drop_id="e")
    assert store.intake.accept_batch([later]) == {}


@pytest.mark.parametrize("way", ["one batch", "one by one"])
def test_mail_whose_first_copy_is_gone_is_no_duplicate(store: Store, way: str) -> None:
    first = accepted(at_ms=clock_ms(), mail_key="k")
    store.intake.accept_batch([first])
    with store.database.write() as tx:
        delete_messages(tx, [first.queue_id])
    new, twin = (accepted(at_ms=clock_ms(), mail_key="k") for _ in range(2))
    again: dict[str, str] = {}
    for batch in [[new, twin]] if way == "one batch" else [[new], [twin]]:
        again |= store.intake.accept_batch(batch)
    assert again == {twin.queue_id: new.queue_id}
    assert stored(store, new, twin) == [new.queue_id]


def test_what_left_the_sandbox_is_no_first_copy(store: Store) -> None:
    captured = NewRecipient(address="c@cust.test", state=RecipientState.CAPTURED)
    first, again, twin = (
        accepted("b@cust.test", captured, at_ms=clock_ms(), mail_key="k") for _ in range(3)
    )
    store.intake.accept_batch([first])
    with store.database.write() as tx:
        assert uncapture(tx, [first.queue_id]) == 1
    assert store.intake.accept_batch([again]) == {}
    assert store.intake.accept_batch([twin]) == {twin.queue_id: again.queue_id}


def test_a_message_may_be_held_for_some_of_its_recipients(store: Store) -> None:
    parts = (part_on("default", "b@cust.test"), part_on("default", "c@cust.test"))
    hold = HoldCause(HoldCode.STORM, "5e came too often")
    message = replace(
        accepted(at_ms=clock_ms()), deliveries=(replace(parts[0], holds=(hold,)), parts[1])
    )
    store.intake.accept_batch([message])
    (entry,) = store.queue.entries([message.queue_id])
    assert [one.state for one in entry.deliveries] == [DeliveryState.HELD, DeliveryState.INCOMING]


def test_a_file_that_could_not_be_removed_is_no_duplicate_of_itself(store: Store) -> None:
    first = accepted(at_ms=clock_ms(), mail_key="k", drop_id="d")
    store.intake.accept_batch([first])
    twice = accepted(at_ms=clock_ms(), mail_key="k", drop_id="d")
    with pytest.raises(AlreadyAccepted):
        store.intake.accept_batch([twice])
    assert store.queue.record_of(first.queue_id).repeated is None


@pytest.mark.parametrize("is_committed", [True, False], ids=["committed", "killed"])
def test_a_duplicate_waits_until_the_first_is_durable_or_was_never_there(
    store: Store, is_committed: bool
) -> None:
    first, twin = (accepted(at_ms=clock_ms(), mail_key="k") for _ in range(2))
    begun, may_end = Event(), Event()

    def take_first() -> None:
        with store.database.write() as tx:
            assert taken_before(tx, [first]) == {}
            insert_messages(tx, [first])
            begun.set()
            assert may_end.wait(60)
            if not is_committed:
                raise KeyboardInterrupt  # its process died: the database forgets it

    with ThreadPoolExecutor() as threads:
        of_first = threads.submit(take_first)
        assert begun.wait(60)
        of_twin = threads.submit(store.intake.accept_batch, [twin])
        assert not of_twin.done()
        may_end.set()
        assert isinstance(of_first.exception(60), type(None) if is_committed else KeyboardInterrupt)
        again = of_twin.result(60)
    assert again == ({twin.queue_id: first.queue_id} if is_committed else {})
    assert stored(store, first, twin) == [first.queue_id if is_committed else twin.queue_id]
