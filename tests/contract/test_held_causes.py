"""Mail that is held for several causes waits until each has ended, on both databases."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import pytest
from sqlalchemy import select

from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.hold import SEVERAL, HoldCause, HoldCode
from relaygw.mail.state import CLAIMABLE, DeliveryState
from relaygw.store.audit import AuditEntry
from relaygw.store.queue_entry import DeliveryEntry
from relaygw.store.queue_tables import held_cause
from relaygw.store.store import Store
from tests.builders import NOW_MS, accepted
from tests.contract.conftest import clock_at
from tests.contract.test_hold_causes import change, part_of

D = DeliveryState
PROMO = HoldCause(HoldCode.STANDING, "h1 the campaign is wrong")
CARD = HoldCause(HoldCode.CONTENT_CHECK, "card a card number")
STORM = HoldCause(HoldCode.STORM, "s1 100 in an hour")
CAUSES = (PROMO, CARD, STORM)
OPERATOR = HoldCause(HoldCode.OPERATOR, "ask first")
DEED = AuditEntry(
    at_ms=NOW_MS, actor="anna", action="queue.release", target="t", affected=1, detail=""
)


def accept(store: Store, *holds: HoldCause) -> AcceptedMessage:
    message = accepted(holds=holds)
    store.intake.accept_batch([message])
    return message


def parts(store: Store, messages: Sequence[AcceptedMessage]) -> list[DeliveryEntry]:
    return [part_of(store, message.queue_id) for message in messages]


def rows_of(store: Store, message: AcceptedMessage) -> list[tuple[str, str | None]]:
    """Return the code of each row of a message, and who lifted it."""
    with store.database.read() as tx:
        its = held_cause.c.queue_id == message.queue_id
        query = select(held_cause.c.hold_code, held_cause.c.lifted_by).where(its)
        return [(row[0], row[1]) for row in tx.execute(query.order_by(held_cause.c.cause_no))]


@pytest.mark.parametrize("order", list(permutations(CAUSES)), ids=lambda causes: causes[0].code)
def test_mail_is_due_when_the_last_of_its_causes_ends(
    store: Store, order: tuple[HoldCause, ...]
) -> None:
    message = accept(store, *CAUSES)
    for number, cause in enumerate(order):
        part = part_of(store, message.queue_id)
        assert (part.state, set(part.causes)) == (D.HELD, set(order[number:]))
        released = store.holds.release_held(cause, limit=9)
        is_last = number == len(order) - 1
        assert (released.ended, released.due) == (1, int(is_last))
        assert released.others == frozenset(order[number + 1 :])
    assert part_of(store, message.queue_id).state is D.DEFERRED
    assert store.holds.held_causes() == []


def test_the_end_of_a_standing_hold_leaves_what_a_check_and_a_storm_hold(store: Store) -> None:
    alone, card, storm = accept(store, PROMO), accept(store, CARD, PROMO), accept(store, STORM)
    assert store.holds.park([(storm.queue_id, 0)], PROMO) == 1
    released = store.holds.release_standing({"h1"})
    assert (released.ended, released.due) == (3, 1)
    assert released.left_words == f"; 2 messages still held: {CARD.sentence}; {STORM.sentence}"
    assert [part.state for part in parts(store, [alone, card, storm])] == [
        D.DEFERRED,
        D.HELD,
        D.HELD,
    ]
    assert [part.causes for part in parts(store, [card, storm])] == [(CARD,), (STORM,)]


def test_each_cause_is_counted_with_its_mail(store: Store) -> None:
    both, alone = accept(store, CARD, PROMO), accept(store, PROMO)
    counts = {group.cause: group.deliveries for group in store.holds.held_mail()}
    assert counts == {CARD: 1, PROMO: 2}
    examples = {group.cause: group.examples for group in store.holds.held_mail()}
    assert examples[PROMO] == tuple(sorted((both.queue_id, alone.queue_id)))
    assert store.holds.held_causes() == sorted((CARD, PROMO))


def test_a_cause_is_not_given_twice(store: Store) -> None:
    message = accept(store, CARD)
    assert store.holds.park([(message.queue_id, 0)], PROMO) == 1
    assert store.holds.park([(message.queue_id, 0)], PROMO) == 0
    assert store.holds.park([(message.queue_id, 0)], CARD) == 0
    assert part_of(store, message.queue_id).causes == (CARD, PROMO)


def test_one_cause_needs_no_row_and_the_last_that_is_left_neither(store: Store) -> None:
    message = accept(store, CARD)
    assert rows_of(store, message) == []
    store.holds.park([(message.queue_id, 0)], PROMO)
    assert [code for code, _ in rows_of(store, message)] == [CARD.code, PROMO.code]
    store.holds.release_held(CARD, limit=9)
    assert rows_of(store, message) == []
    part = part_of(store, message.queue_id)
    assert (part.hold, part.reason) == (PROMO, PROMO.sentence)


def test_a_person_lifts_all_causes_and_that_is_kept(store: Store) -> None:
    message = accept(store, CARD, STORM)
    ids, held = [message.queue_id], frozenset({D.HELD})
    assert store.queue.change_state(ids, from_states=held, to=D.DEFERRED, entry=DEED) == 1
    assert part_of(store, message.queue_id).state is D.DEFERRED
    assert rows_of(store, message) == [(CARD.code, "anna"), (STORM.code, "anna")]


def test_mail_that_is_held_again_waits_for_the_new_cause_alone(store: Store) -> None:
    message = accept(store, CARD, STORM)
    ids = [message.queue_id]
    with clock_at(store, NOW_MS + 10):
        store.queue.change_state(ids, from_states=frozenset({D.HELD}), to=D.DEFERRED, entry=DEED)
    with clock_at(store, NOW_MS + 20):
        assert store.holds.park([(message.queue_id, 0)], PROMO) == 1
        assert part_of(store, message.queue_id).causes == (PROMO,)
        assert store.holds.release_held(PROMO, limit=9).due == 1
    assert part_of(store, message.queue_id).state is D.DEFERRED


def test_an_operator_holds_what_is_held_already(store: Store) -> None:
    message = accept(store, PROMO)
    states = CLAIMABLE | {D.HELD}
    ids = [message.queue_id]
    assert store.queue.change_state(ids, from_states=states, to=D.HELD, hold=OPERATOR, entry=DEED)
    assert part_of(store, message.queue_id).causes == (PROMO, OPERATOR)
    released = store.holds.release_standing({"h1"})
    assert (released.due, released.others) == (0, {OPERATOR})


def test_the_trash_keeps_all_causes(store: Store) -> None:
    message = accept(store, CARD, PROMO)
    ids, held = [message.queue_id], frozenset({D.HELD})
    store.queue.change_state(ids, from_states=held, to=D.DELETED, entry=DEED)
    assert store.holds.held_causes() == []
    assert store.holds.release_held(PROMO, limit=9).ended == 0
    store.queue.undelete(ids, entry=DEED)
    assert part_of(store, message.queue_id).causes == (CARD, PROMO)
    assert store.holds.release_held(CARD, limit=9).due == 0
    assert store.holds.release_held(PROMO, limit=9).due == 1


def test_an_older_version_lets_nothing_go_that_has_a_cause_left(store: Store) -> None:
    message = accept(store, CARD, PROMO)
    part = part_of(store, message.queue_id)
    assert part.reason == f"{SEVERAL}{CARD.sentence}; {PROMO.sentence}"
    # what schema 0014 does at the end of the hold, and at the look at its content again
    for cause in (PROMO, CARD):
        change(
            store,
            "UPDATE delivery SET state = 'deferred', held_at_ms = NULL"
            " WHERE state = 'held' AND hold_code = :code AND hold_key = :key",
            code=cause.code.value,
            key=cause.key,
        )
    assert part_of(store, message.queue_id).state is D.HELD
    # what it does at `queue release`, and when it holds that again for one cause
    change(store, "UPDATE delivery SET state = 'deferred', held_at_ms = NULL, hold_code = NULL")
    change(
        store,
        "UPDATE delivery SET state = 'held', held_at_ms = :at_ms, hold_code = 'operator',"
        " hold_key = 'ask first', reason = 'operator: ask first'",
        at_ms=store.clock_ms() + 60_000,
    )
    assert part_of(store, message.queue_id).causes == (OPERATOR,)
    assert store.holds.held_causes() == [OPERATOR], (
        "rows from before it was held again count no more"
    )
    assert [group.cause for group in store.holds.held_mail()] == [OPERATOR]
    assert store.holds.release_held(PROMO, limit=9).ended == 0
    assert store.holds.release_held(OPERATOR, limit=9).due == 1


def test_a_provider_pauses_no_longer_than_it_is_stopped(store: Store) -> None:
    change(
        store,
        "INSERT INTO hold (hold_id, scope, key, reason, remedy, since_ms, actor) VALUES"
        " ('h9', 'all', 'main', 'r', '', :at_ms, 'anna')",
        at_ms=NOW_MS - 3_600_000,
    )
    assert store.holds.stopped_ms("main", since_ms=NOW_MS - 7_200_000) == 0
