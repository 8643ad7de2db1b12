"""What is written down of attempts to send, and of operators: every database."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from relaygw.mail.attempt_state import AttemptState
from relaygw.mail.envelope import AcceptedMessage, DeliveryUpdate, RecipientUpdate
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.outcome import Stage, Verdict
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store import outcomes, queue_entry
from relaygw.store.audit import AuditEntry
from relaygw.store.database import BatchStatement
from relaygw.store.queue_entry import tried_since_ms
from relaygw.store.store import Store
from tests.builders import NOW_MS, accepted, instance
from tests.contract.conftest import purge_before
from tests.contract.test_store_contract import claim, entry_of, finish

DUE_MS = NOW_MS + 60_000
DELIVERED = RecipientState.DELIVERED
PENDING = RecipientState.PENDING


def said(
    reply: str,
    *,
    rcpt_no: int = 0,
    state: RecipientState = PENDING,
    verdict: Verdict = Verdict.RETRY,
    stage: Stage = Stage.RCPT,
    provider: str = "main",
) -> RecipientUpdate:
    return RecipientUpdate(
        rcpt_no=rcpt_no,
        state=state,
        reply=reply,
        dsn="4.0.0",
        provider=provider,
        charged=verdict in (Verdict.RETRY, Verdict.BOUNCE, Verdict.DOUBT),
        stage=stage,
        verdict=verdict,
    )


def outcome(
    message: AcceptedMessage,
    *changes: RecipientUpdate,
    state: DeliveryState = DeliveryState.DEFERRED,
    **more: Any,
) -> DeliveryUpdate:
    values: dict[str, Any] = {
        "queue_id": message.queue_id,
        "delivery_no": 0,
        "state": state,
        "due_at_ms": DUE_MS,
        "provider": "main",
        "reason": changes[0].reply if changes else None,
        "recipients": changes,
        "charged": any(change.charged for change in changes),
        "relay": "smtp.provider.test[192.0.2.1]:587",
    }
    return DeliveryUpdate(**values | more)


def waiting(store: Store, *recipients: str) -> AcceptedMessage:
    """Return a message that the worker "one" has in hand."""
    message = accepted(*recipients)
    store.intake.accept_batch([message])
    claim(store)
    return message


def record(store: Store, *updates: DeliveryUpdate, now_ms: int = NOW_MS) -> None:
    assert store.leases.record_batch(updates, incarnation="one", now_ms=now_ms).is_alive


def test_a_first_try_that_is_taken_leaves_no_attempt(store: Store) -> None:
    message = waiting(store, "b@cust.test", "c@cust.test")
    first = finish(message.queue_id, rcpt_nos=(0, 1))
    record(store, replace(first, is_first_try=True))
    assert store.queue.attempts(message.queue_id) == []
    assert entry_of(store, message.queue_id).deliveries[0].state is DeliveryState.FINISHED


def test_what_is_taken_at_once_costs_no_statement(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    message, deferred = waiting(store), waiting(store)
    texts: list[str] = []
    execute = BatchStatement.execute

    def note(statement: BatchStatement, connection: Any, rows: Any, last: Any) -> Any:
        texts.append(statement.text(len(rows)))
        return execute(statement, connection, rows, last)

    monkeypatch.setattr(BatchStatement, "execute", note)
    record(store, replace(finish(message.queue_id), is_first_try=True))
    assert texts and not [text for text in texts if "attempt_id" in text or "INTO attempt" in text]
    record(store, outcome(deferred, said("451 later")))
    assert [text for text in texts if "INTO attempt" in text]


def test_a_deferral_is_written_with_what_was_said(store: Store) -> None:
    message = waiting(store)
    record(store, outcome(message, said("451 4.7.1 later"), is_first_try=True))
    (entry,) = store.queue.attempts(message.queue_id)
    assert (entry.delivery_no, entry.rcpt_no, entry.times) == (0, None, 1)
    assert (entry.at_ms, entry.since_ms, entry.next_at_ms) == (NOW_MS, NOW_MS, DUE_MS)
    assert (entry.provider, entry.relay) == ("main", "smtp.provider.test[192.0.2.1]:587")
    assert (entry.stage, entry.state) == (Stage.RCPT, AttemptState.DEFERRED)
    assert (entry.reply, entry.dsn) == ("451 4.7.1 later", "4.0.0")


@pytest.mark.parametrize(
    ("state", "written", "next_at_ms"),
    [
        (DeliveryState.DEFERRED, AttemptState.DEFERRED, DUE_MS),
        (DeliveryState.HELD, AttemptState.HELD, None),
    ],
)
def test_what_nobody_was_told_of_says_when_it_is_tried_next(
    store: Store, state: DeliveryState, written: AttemptState, next_at_ms: int | None
) -> None:
    message = waiting(store)
    record(store, outcome(message, state=state, reason="no connection", charged=True))
    (entry,) = store.queue.attempts(message.queue_id)
    assert (entry.state, entry.reply, entry.next_at_ms) == (written, "no connection", next_at_ms)


def test_mail_is_tried_since_a_provider_was_asked(store: Store) -> None:
    message = waiting(store)
    unasked = outcome(message, provider=None, reason="no connection", charged=True)
    for number, update in enumerate((unasked, outcome(message, said("451 later")))):
        assert tried_since_ms(store.queue.attempts(message.queue_id), 0) is None
        record(store, update, now_ms=NOW_MS + number)
        claim(store, now_ms=DUE_MS)
    found = store.queue.attempts(message.queue_id)
    assert (tried_since_ms(found, 0), tried_since_ms(found, 1)) == (NOW_MS + 1, None)


def test_delivery_after_earlier_tries_is_written(store: Store) -> None:
    message = waiting(store)
    record(store, outcome(message, said("451 later")))
    claim(store, now_ms=DUE_MS)
    taken = said("250 Ok", state=DELIVERED, verdict=Verdict.DELIVERED, stage=Stage.CONTENT)
    record(store, outcome(message, taken, state=DeliveryState.FINISHED), now_ms=DUE_MS)
    first, second = store.queue.attempts(message.queue_id)
    assert (first.state, second.state) == (AttemptState.DEFERRED, AttemptState.DELIVERED)
    assert (second.next_at_ms, second.reply) == (None, "250 Ok")


@pytest.mark.parametrize(
    ("change", "state"),
    [
        (said("550 no", state=RecipientState.BOUNCED, verdict=Verdict.BOUNCE), "bounced"),
        (said("451 later", state=RecipientState.EXPIRED), "expired"),
        (said("535 bad key", verdict=Verdict.HOLD, stage=Stage.AUTH), "held"),
        (said("454 slower", verdict=Verdict.THROTTLE), "throttled"),
        (said("lost after the dot", verdict=Verdict.DOUBT), "in doubt"),
    ],
)
def test_every_other_outcome_is_written(store: Store, change: RecipientUpdate, state: str) -> None:
    message = waiting(store)
    over = change.state is not PENDING
    next_state = DeliveryState.FINISHED if over else DeliveryState.DEFERRED
    record(store, outcome(message, change, state=next_state, is_first_try=True))
    (entry,) = store.queue.attempts(message.queue_id)
    assert (entry.state, entry.reply) == (AttemptState(state), change.reply)
    assert (entry.next_at_ms is None) == over


def test_what_is_held_here_is_written_and_what_only_waits_is_not(store: Store) -> None:
    message = waiting(store)
    held = outcome(message, state=DeliveryState.HELD, reason="poison", charged=False)
    record(store, replace(held, state=DeliveryState.DEFERRED, reason="waits for provider main"))
    claim(store, now_ms=DUE_MS)
    record(store, held)
    (entry,) = store.queue.attempts(message.queue_id)
    assert (entry.state, entry.reply, entry.stage) == (AttemptState.HELD, "poison", Stage.LOCAL)


def test_recipients_that_were_told_different_things_have_a_row_each(store: Store) -> None:
    message = waiting(store, "b@cust.test", "c@cust.test", "d@cust.test")
    taken = said("250 Ok", state=DELIVERED, verdict=Verdict.DELIVERED, stage=Stage.CONTENT)
    changes = (taken, said("451 later", rcpt_no=1), said("452 full", rcpt_no=2))
    record(store, outcome(message, *changes, is_first_try=True))
    found = [(one.rcpt_no, one.reply) for one in store.queue.attempts(message.queue_id)]
    assert found == [(1, "451 later"), (2, "452 full")]


def test_recipients_that_were_told_the_same_share_a_row(store: Store) -> None:
    message = waiting(store, "b@cust.test", "c@cust.test")
    record(store, outcome(message, said("451 later"), said("451 later", rcpt_no=1)))
    assert [one.rcpt_no for one in store.queue.attempts(message.queue_id)] == [None]


def test_recipients_held_apart_are_written_beside_the_others(store: Store) -> None:
    message = waiting(store, "b@cust.test", "c@cust.test")
    taken = said("250 Ok", state=DELIVERED, verdict=Verdict.DELIVERED, stage=Stage.CONTENT)
    apart = {"held_apart": (1,), "held_apart_for": HoldCause(HoldCode.MODE), "is_first_try": True}
    record(store, outcome(message, taken, state=DeliveryState.FINISHED, **apart))
    (entry,) = store.queue.attempts(message.queue_id)
    assert (entry.rcpt_no, entry.state, entry.reply) == (1, AttemptState.HELD, "mode")


def test_a_lost_lease_leaves_no_attempt(store: Store) -> None:
    kept, lost = waiting(store), waiting(store)
    store.leases.give_back([(lost.queue_id, 0)], incarnation="one")
    record(store, outcome(kept, said("451 later")), outcome(lost, said("451 later")))
    assert len(store.queue.attempts(kept.queue_id)) == 1
    assert store.queue.attempts(lost.queue_id) == []
    throttled = outcome(kept, said("454 slower", verdict=Verdict.THROTTLE))
    record(store, throttled)
    assert len(store.queue.attempts(kept.queue_id)) == 1


def test_an_outcome_that_is_recorded_twice_leaves_one_attempt(store: Store) -> None:
    message = waiting(store)
    for try_ms in (NOW_MS, NOW_MS + 700):  # the answer to the first was lost
        record(store, outcome(message, said("454 slower", verdict=Verdict.THROTTLE)), now_ms=try_ms)
    (entry,) = store.queue.attempts(message.queue_id)
    assert (entry.times, entry.at_ms) == (1, NOW_MS)


def test_tries_without_a_charge_are_counted_in_one_row(store: Store) -> None:
    message = waiting(store)
    words = ["454 slower (a)", "454 slower (b)", "454 slower (c)"]
    for number, reply in enumerate(words):
        throttled = outcome(message, said(reply, verdict=Verdict.THROTTLE))
        record(store, throttled, now_ms=NOW_MS + number)
        claim(store, now_ms=DUE_MS)
    (entry,) = store.queue.attempts(message.queue_id)
    assert (entry.times, entry.since_ms, entry.at_ms) == (3, NOW_MS, NOW_MS + 2)
    assert entry.reply == words[-1]
    record(store, outcome(message, said("454 slower", verdict=Verdict.THROTTLE, provider="b")))
    claim(store, now_ms=DUE_MS)
    record(store, outcome(message, said("451 later")))
    claim(store, now_ms=DUE_MS)
    record(store, outcome(message, said("454 slower", verdict=Verdict.THROTTLE)))
    states = [(one.state.value, one.times) for one in store.queue.attempts(message.queue_id)]
    assert states == [("throttled", 3), ("throttled", 1), ("deferred", 1), ("throttled", 1)]


def test_a_message_keeps_its_newest_attempts(store: Store) -> None:
    message, other = waiting(store), waiting(store)
    record(store, outcome(other, said("451 other")))
    for number in range(queue_entry.MOST_ATTEMPTS + 3):
        record(store, outcome(message, said(f"451 {number}")), now_ms=NOW_MS + number)
        claim(store, now_ms=DUE_MS)
    found = store.queue.attempts(message.queue_id)
    assert len(found) == queue_entry.MOST_ATTEMPTS
    assert (found[0].reply, found[-1].reply) == ("451 3", f"451 {queue_entry.MOST_ATTEMPTS + 2}")
    assert len(store.queue.attempts(other.queue_id)) == 1


def test_an_attempt_for_many_recipients_adds_no_more_than_its_share(store: Store) -> None:
    message = waiting(store, *(f"c{number}@cust.test" for number in range(120)))
    changes = [said(f"451 {number}", rcpt_no=number) for number in range(120)]
    record(store, outcome(message, *changes))
    assert len(store.queue.attempts(message.queue_id)) == outcomes.MAX_ROWS
    assert entry_of(store, message.queue_id).recipients[119].reply == "451 119"


def test_a_reply_is_cut_and_may_hold_anything(store: Store) -> None:
    message = waiting(store)
    record(store, outcome(message, said("451 \0 " + "x" * 5000)))
    (entry,) = store.queue.attempts(message.queue_id)
    assert len(entry.reply) == outcomes.MAX_REPLY


def test_attempts_go_with_their_message(store: Store) -> None:
    message = waiting(store)
    bounced = said("550 no", state=RecipientState.BOUNCED, verdict=Verdict.BOUNCE)
    record(store, outcome(message, bounced, state=DeliveryState.FINISHED))
    assert store.queue.attempts(message.queue_id)
    late_ms = NOW_MS + 10**9
    purge_before(store, {"finished": late_ms}, limit=10)
    assert store.queue.attempts(message.queue_id) == []


def test_the_death_of_a_worker_is_written_for_what_it_was_sending(store: Store) -> None:
    begun, waited = waiting(store), waiting(store)
    store.instances.bury("one", begun=[(begun.queue_id, 0, "main")])
    (entry,) = store.queue.attempts(begun.queue_id)
    assert (entry.state, entry.provider) == (AttemptState.INTERRUPTED, "main")
    assert store.queue.attempts(waited.queue_id) == []
    (facts,) = store.queue.record_of(begun.queue_id).deliveries
    assert (facts.reclaims, facts.lease) == (1, None)


def test_the_record_of_a_message_has_its_operators_actions(store: Store) -> None:
    one, other = waiting(store), waiting(store)
    store.instances.register(instance("two"))
    entry = AuditEntry(
        at_ms=NOW_MS, actor="ann", action="queue.hold", target="", affected=0, detail="a reason"
    )
    store.leases.give_back([(one.queue_id, 0)], incarnation="one")
    for at_ms, targets in ((2, one.queue_id), (1, f"{other.queue_id} {one.queue_id}"), (3, "main")):
        store.queue.change_state(
            [],
            from_states=frozenset({DeliveryState.INCOMING}),
            to=DeliveryState.HELD,
            entry=replace(entry, at_ms=at_ms, target=targets),
        )
    record_of_one = store.queue.record_of(one.queue_id)
    assert [action.at_ms for action in record_of_one.actions] == [1, 2]
    assert (record_of_one.attempts, record_of_one.finished_at_ms) == ((), None)
    assert [part.lease for part in store.queue.record_of(other.queue_id).deliveries] == ["one"]
    unknown = store.queue.record_of("NOSUCHID00")
    assert (unknown.attempts, unknown.actions, unknown.deliveries) == ((), (), ())
