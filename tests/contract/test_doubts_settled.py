"""What an event of a provider settles, and who is still to be sent to: every database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from relaygw.mail.attempt_state import AttemptState
from relaygw.mail.envelope import AcceptedMessage, ClaimedDelivery, DeliveryUpdate, RecipientUpdate
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.outcome import Stage, Verdict
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.verdict import BOUNCE_MAIL, Event, Kind
from relaygw.store.audit import AuditEntry
from relaygw.store.feedback import MatchedEvent
from relaygw.store.rules import StoreRules, WebhookRule
from relaygw.store.store import Store, open_store
from tests.builders import NOW_MS, accepted, instance, update_of
from tests.contract.test_store_contract import claim, entry_of
from tests.tables import each_of

RULES = StoreRules(
    doubt_waits={"main": 0.0, "slow": 300.0},
    siblings={"main-promo": frozenset({"main", "main-promo"})},
    webhooks=(WebhookRule("shop", frozenset({"delivered", "bounced"})),),
)
EVERY_FAR = NOW_MS + 10**9


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = open_store(url, rules=RULES)
    store.instances.register(instance("one"))
    yield store
    store.close()


def in_doubt(claimed: ClaimedDelivery, provider: str = "main", **more: object) -> DeliveryUpdate:
    """Return an outcome of which no answer is known."""
    people = tuple(
        RecipientUpdate(
            rcpt_no=one.rcpt_no,
            state=RecipientState.PENDING,
            reply="connection lost",
            dsn="4.4.2",
            provider=provider,
            stage=Stage.CONTENT,
            verdict=Verdict.DOUBT,
        )
        for one in claimed.recipients
    )
    values = {
        "state": DeliveryState.DEFERRED,
        "due_at_ms": NOW_MS + 1,
        "provider": provider,
        "recipients": people,
        "doubted": True,
    }
    return update_of(claimed.queue_id, **values | more)


def told(message: AcceptedMessage, rcpt_no: int = 0, *, by: str = "main", **more: object):
    """Return an event about a recipient."""
    kind = more.pop("kind", Kind.DELIVERED)
    key = f"{message.queue_id} {rcpt_no} {kind} {by} {more}"
    event = Event(key=key, kind=kind, at_ms=NOW_MS)
    return MatchedEvent(provider=by, event=event, queue_id=message.queue_id, rcpt_no=rcpt_no)


def doubtful(store: Store, *addresses: str, **more: object) -> AcceptedMessage:
    """Return a message that the provider may have."""
    message = accepted(*addresses)
    store.intake.accept_batch([message])
    (claimed,) = claim(store)
    record(store, in_doubt(claimed, **more))
    return message


def record(store: Store, *updates: DeliveryUpdate, incarnation: str = "one") -> object:
    return store.leases.record_batch(updates, incarnation=incarnation, now_ms=NOW_MS)


def states(store: Store, message: AcceptedMessage) -> tuple[list[str], list[str]]:
    entry = entry_of(store, message.queue_id)
    return [one.state for one in entry.deliveries], [one.state for one in entry.recipients]


@each_of("kind", Kind)
def test_any_event_of_the_provider_settles_a_doubt(store: Store, kind: Kind) -> None:
    message = doubtful(store)
    (new,) = store.feedback.take([told(message, kind=kind)])
    assert new.settled == ("b@cust.test",)
    assert store.feedback.take([told(message, kind=kind)]) == [], "told once"
    assert states(store, message) == (["finished"], ["delivered"])
    (one,) = entry_of(store, message.queue_id).recipients
    assert (one.provider, one.reply) == ("main", f"main has it: its event tells {kind}")
    last = store.queue.attempts(message.queue_id)[-1]
    assert (last.state, last.provider, last.rcpt_no) == (AttemptState.DELIVERED, "main", 0)
    assert not claim(store, now_ms=EVERY_FAR)
    assert store.queue.record_of(message.queue_id).finished_at_ms is not None


def test_mail_held_in_doubt_is_settled(store: Store) -> None:
    message = doubtful(
        store, state=DeliveryState.HELD, hold=HoldCause(HoldCode.IN_DOUBT), reason="in doubt"
    )
    store.feedback.take([told(message)])
    assert states(store, message) == (["finished"], ["delivered"])


def test_who_waits_without_a_doubt_or_with_another_provider_waits_on(store: Store) -> None:
    fresh = accepted()
    store.intake.accept_batch([fresh])
    (claimed,) = claim(store)
    record(store, replace(in_doubt(claimed), doubted=False, due_at_ms=EVERY_FAR))
    other = doubtful(store, due_at_ms=EVERY_FAR)
    store.feedback.take([told(fresh), told(other, by="another")])
    for message in (fresh, other):
        assert states(store, message) == (["deferred"], ["pending"])
    parts = [entry_of(store, one.queue_id).deliveries[0] for one in (fresh, other)]
    assert [(one.provider, one.is_in_doubt) for one in parts] == [("main", False), ("main", True)]


def test_of_several_recipients_each_is_settled_by_its_own_event(store: Store) -> None:
    message = doubtful(store, "a@x.test", "b@x.test", due_at_ms=NOW_MS - 1)
    store.feedback.take([told(message, 1)])
    assert states(store, message) == (["deferred"], ["pending", "delivered"])
    (claimed,) = claim(store)
    assert [one.address for one in claimed.recipients] == ["a@x.test"]
    store.leases.give_back([(message.queue_id, 0)], incarnation="one")
    store.feedback.take([told(message, 0)])
    assert states(store, message) == (["finished"], ["delivered", "delivered"])


def test_an_event_at_another_provider_of_the_service_settles_it(store: Store) -> None:
    message = doubtful(store)
    store.feedback.take([told(message, by="main-promo")])
    (one,) = entry_of(store, message.queue_id).recipients
    assert (one.state, one.provider) == (RecipientState.DELIVERED, "main")


def test_a_bounce_mail_that_anybody_may_write_settles_nothing(store: Store) -> None:
    message = doubtful(store, due_at_ms=EVERY_FAR)
    store.feedback.take([told(message, by=BOUNCE_MAIL, kind=Kind.HARD)])
    assert states(store, message) == (["deferred"], ["pending"])


def test_receivers_hear_first_that_it_was_delivered(store: Store) -> None:
    message = doubtful(store)
    store.feedback.take([told(message, kind=Kind.HARD)])
    with store.database.read() as tx:
        rows = tx.connection.exec_driver_sql(
            "SELECT kind, provider FROM webhook_event ORDER BY event_no"
        )
        assert list(map(tuple, rows)) == [("delivered", "main"), ("bounced", "main")]


def test_what_comes_back_from_the_trash_is_settled_by_what_was_told_meanwhile(
    store: Store,
) -> None:
    message = doubtful(store)
    entry = AuditEntry(at_ms=NOW_MS, actor="x", action="a", target="", detail="", affected=0)
    waiting = frozenset({DeliveryState.DEFERRED})
    store.queue.change_state(
        [message.queue_id], from_states=waiting, to=DeliveryState.DELETED, entry=entry
    )
    store.feedback.take([told(message)])
    assert states(store, message) == (["deleted"], ["cancelled"])
    store.queue.undelete([message.queue_id], entry=entry)
    assert states(store, message) == (["finished"], ["delivered"])


def test_one_address_that_stands_twice_is_settled_whole(store: Store) -> None:
    message = doubtful(store, "a@x.test", "a@x.test")
    store.feedback.take([told(message, 1)])
    assert states(store, message) == (["finished"], ["delivered", "delivered"])


def test_what_a_worker_has_in_hand_it_does_not_send_and_ends(store: Store) -> None:
    message = doubtful(store, due_at_ms=NOW_MS - 1)
    (claimed,) = claim(store)
    assert store.doubts.still_wait(message.queue_id, [0])
    store.feedback.take([told(message)])
    assert not store.doubts.still_wait(message.queue_id, [0])
    assert states(store, message) == (["active"], ["delivered"])
    record(store, in_doubt(claimed, due_at_ms=NOW_MS + 2))  # its event came after the dot
    assert states(store, message) == (["finished"], ["delivered"])
    assert not claim(store, now_ms=EVERY_FAR)


def test_a_late_answer_tells_more_than_the_event(store: Store) -> None:
    message = doubtful(store, due_at_ms=NOW_MS - 1)
    claim(store)
    store.feedback.take([told(message)])
    taken = RecipientUpdate(
        rcpt_no=0, state=RecipientState.DELIVERED, reply="250 Ok: queued as X", dsn="2.0.0",
        provider="main",
    )  # fmt: skip
    record(store, update_of(message.queue_id, recipients=(taken,), due_at_ms=NOW_MS + 2))
    assert entry_of(store, message.queue_id).recipients[0].reply == "250 Ok: queued as X"


def test_an_event_that_comes_before_the_doubt_settles_it(store: Store) -> None:
    message = accepted()
    store.intake.accept_batch([message])
    (claimed,) = claim(store)
    store.feedback.take([told(message, kind=Kind.ACCEPTED)])
    assert states(store, message) == (["active"], ["pending"])
    recorded = record(store, in_doubt(claimed))
    assert [one.address for one in recorded.settled] == ["b@cust.test"]
    assert states(store, message) == (["finished"], ["delivered"])


@pytest.mark.parametrize("is_told_before", [True, False])
def test_what_a_dead_worker_was_sending_waits_for_the_event(
    store: Store, is_told_before: bool
) -> None:
    message = accepted()
    store.intake.accept_batch([message])
    claim(store)
    events = [told(message, by="slow")]
    if is_told_before:
        store.feedback.take(events)
    store.instances.bury("one", begun=[(message.queue_id, 0, "slow")])
    store.instances.register(instance("two"))
    if not is_told_before:
        part = entry_of(store, message.queue_id).deliveries[0]
        assert (part.state, part.is_in_doubt) == (DeliveryState.DEFERRED, True)
        assert part.due_at_ms > store.clock_ms() + 200_000
        store.feedback.take(events)
    assert states(store, message) == (["finished"], ["delivered"])


def test_with_a_key_it_is_due_at_once_and_bound_to_its_provider(store: Store) -> None:
    message = accepted()
    store.intake.accept_batch([message])
    claim(store)
    store.instances.bury("one", begun=[(message.queue_id, 0, "main")])
    store.instances.register(instance("one"))
    (claimed,) = claim(store)
    assert (claimed.doubts, claimed.reclaims, claimed.provider) == (1, 1, "main")
    # whatever comes next leaves it in doubt
    record(store, replace(in_doubt(claimed), doubted=False))
    assert entry_of(store, message.queue_id).deliveries[0].is_in_doubt


def test_what_is_told_after_the_lease_was_lost_binds_the_mail(store: Store) -> None:
    message = accepted()
    store.intake.accept_batch([message])
    (claimed,) = claim(store)
    store.instances.bury("one", begun=None)
    store.instances.register(instance("two"))
    assert not entry_of(store, message.queue_id).deliveries[0].is_in_doubt
    record(store, in_doubt(claimed))
    part = entry_of(store, message.queue_id).deliveries[0]
    assert (part.provider, part.is_in_doubt) == ("main", True)
    store.feedback.take([told(message)])
    assert states(store, message) == (["finished"], ["delivered"])


def test_what_is_refused_after_the_lease_was_lost_leaves_the_mail_to_all(store: Store) -> None:
    message = accepted()
    store.intake.accept_batch([message])
    (claimed,) = claim(store)
    store.instances.bury("one", begun=None)
    store.instances.register(instance("two"))
    update = in_doubt(claimed)
    refused = tuple(replace(one, verdict=Verdict.RETRY) for one in update.recipients)
    record(store, replace(update, recipients=refused, doubted=False))
    part = entry_of(store, message.queue_id).deliveries[0]
    assert (part.provider, part.is_in_doubt) == (None, False)


def test_a_doubt_begins_when_its_mail_was_claimed(store: Store) -> None:
    message = accepted()
    store.intake.accept_batch([message])
    (claimed,) = claim(store)
    begun_ms = store.queue.record_of(message.queue_id).deliveries[0].changed_at_ms
    later = [in_doubt(claimed, due_at_ms=NOW_MS + 7_200_001)]
    store.leases.record_batch(later, incarnation="one", now_ms=NOW_MS + 7_200_000)
    assert store.doubts.history(message.queue_id, [0]).since_ms == begun_ms


def test_letting_go_of_what_is_held_in_doubt_makes_another_key(store: Store) -> None:
    held = {"state": DeliveryState.HELD, "reason": "x"}
    doubt = doubtful(store, hold=HoldCause(HoldCode.IN_DOUBT), **held)
    other = doubtful(store, hold=HoldCause(HoldCode.OPERATOR, "x"), **held)
    assert store.doubts.history(doubt.queue_id, [0]).since_ms is not None
    store.queue.change_state(
        [doubt.queue_id, other.queue_id],
        from_states=frozenset({DeliveryState.HELD}),
        to=DeliveryState.DEFERRED,
        entry=AuditEntry(
            at_ms=NOW_MS + 10, actor="x", action="queue.release", target="", detail="", affected=0
        ),
    )
    after = store.doubts.history(doubt.queue_id, [0])
    assert (after.generations, after.since_ms) == ({0: 1}, None)
    assert store.doubts.history(other.queue_id, [0]).generations == {}
