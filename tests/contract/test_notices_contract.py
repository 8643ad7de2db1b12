"""Notices that are due to senders: noted with the outcome, made once, and free where off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import AcceptedMessage, DeliveryUpdate, NewRecipient, RecipientUpdate
from relaygw.mail.notice import DueNotice
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.audit import AuditEntry
from relaygw.store.notices import GATHER_MS
from relaygw.store.rules import StoreRules
from relaygw.store.store import Store, open_store
from tests.builders import accepted, instance, part_on, taken, update_of
from tests.contract.conftest import clock_at, purge_before, shed_content

TELLS = StoreRules(tells_failures=True)
ALWAYS = StoreRules(tells_failures=True, tells_always=True)
_R = RecipientState


@pytest.fixture(params=[TELLS])
def store(url: str, request: pytest.FixtureRequest) -> Iterator[Store]:
    store = open_store(url, rules=request.param)
    store.instances.register(instance("one"))
    yield store
    store.close()


def refused(rcpt_no: int = 0, state: RecipientState = _R.BOUNCED) -> RecipientUpdate:
    told: dict[str, Any] = {"reply": "550 5.1.1 no", "dsn": "5.1.1", "provider": "main"}
    return RecipientUpdate(rcpt_no=rcpt_no, state=state, **told)


def waits(rcpt_no: int) -> RecipientUpdate:
    told: dict[str, Any] = {"reply": "450 later", "dsn": "4.0.0", "provider": "main"}
    return RecipientUpdate(rcpt_no=rcpt_no, state=_R.PENDING, **told)


def accept(store: Store, *who: str | NewRecipient, **more: Any) -> AcceptedMessage:
    message = accepted(*who, at_ms=clock_ms(), **more)
    store.intake.accept_batch([message])
    return message


def record(store: Store, message: AcceptedMessage, *told: RecipientUpdate, **more: Any) -> None:
    """Claim what is due and write an outcome of one delivery."""
    now_ms = clock_ms()
    store.leases.claim("default", limit=9, incarnation="one", now_ms=now_ms + 10)
    update: DeliveryUpdate = update_of(message.queue_id, recipients=told, **more)
    update = replace(update, due_at_ms=now_ms)
    assert not store.leases.record_batch([update], incarnation="one", now_ms=now_ms).lost


def due(store: Store) -> list[tuple[str, str, list[int]]]:
    found = store.notices.due(limit=9)
    return [(one.queue_id, one.kind, [who.rcpt_no for who in one.recipients]) for one in found]


def content_of(store: Store, message: AcceptedMessage) -> bytes | None:
    return store.intake.read_chunk(message.queue_id, 0)


def rows(store: Store) -> int:
    with store.database.read() as tx:
        return int(tx.execute(text("SELECT count(*) FROM notice")).scalar_one())


def test_a_failure_is_due_with_its_outcome_and_keeps_the_content_until_it_is_made(
    store: Store,
) -> None:
    message = accept(store)
    record(store, message, refused())
    (notice,) = store.notices.due(limit=9)
    assert (notice.queue_id, notice.kind, notice.tries) == (message.queue_id, "failed", 0)
    assert (notice.sender, notice.mode) == ("a@shop.test", "production")
    (who,) = notice.recipients
    assert (who.address, who.state, who.reply) == ("b@cust.test", _R.BOUNCED, "550 5.1.1 no")
    later_ms = clock_ms() + 10**7
    assert content_of(store, message) is not None
    assert not shed_content(store, later_ms)
    assert purge_before(store, {"finished": later_ms}, limit=9) == 0

    told = accepted("a@shop.test", sender="", drop_id="notice-1", at_ms=clock_ms())
    assert store.notices.store_notice(notice, [told], detail="told a@shop.test")
    assert due(store) == []
    assert store.queue.entries([told.queue_id])[0].sender == ""
    assert shed_content(store, later_ms)
    assert content_of(store, message) is None
    (made,) = store.queue.record_of(message.queue_id).notices
    assert (made.kind, made.notice_ids, made.detail) == (
        *("failed", (told.queue_id,), "told a@shop.test"),
    )
    # a purge finds by the time in the id, too
    assert purge_before(store, {"finished": later_ms}, limit=9) == 1
    assert rows(store) == 0, "gone with its message"


def test_it_is_made_once_by_whoever_is_first(store: Store, url: str) -> None:
    message = accept(store)
    record(store, message, refused())
    other = open_store(url, rules=TELLS)
    try:
        (mine,), (theirs,) = store.notices.due(limit=9), other.notices.due(limit=9)
        one, two = (accepted(sender="", drop_id=f"notice-{n}") for n in range(2))
        assert store.notices.store_notice(mine, [one], detail="")
        assert not other.notices.store_notice(theirs, [two], detail="")
        assert not store.queue.entries([two.queue_id])
    finally:
        other.close()


def test_recipients_that_end_at_different_times_are_told_of_together(store: Store) -> None:
    message = accept(store, "b@cust.test", "c@cust.test", "d@cust.test")
    later = {"state": DeliveryState.DEFERRED}
    record(store, message, refused(0), waits(1), waits(2), **later)
    assert due(store) == [], "two may follow"
    record(store, message, refused(1), waits(2), **later)
    assert due(store) == []
    record(store, message, taken(2))
    assert due(store) == [(message.queue_id, "failed", [0, 1])]
    assert content_of(store, message) is not None


def test_the_first_failure_waits_for_others_for_an_hour_at_most(store: Store) -> None:
    message = accept(store, "b@cust.test", "c@cust.test")
    record(store, message, refused(0), waits(1), state=DeliveryState.DEFERRED)
    with clock_at(store, clock_ms() + GATHER_MS + 1000):
        (notice,) = store.notices.due(limit=9)
        assert store.notices.store_notice(notice, [], detail="")
    record(store, message, refused(1))
    assert due(store) == [(message.queue_id, "failed", [1])], "and each is told of once"


def test_a_message_with_several_deliveries_is_told_of_once(store: Store) -> None:
    parts = (part_on("default", "b@cust.test"), part_on("default", "c@cust.test"))
    message = accept(store, deliveries=parts)
    record(store, message, refused(0))
    assert due(store) == []
    record(store, message, refused(1), delivery_no=1)
    assert due(store) == [(message.queue_id, "failed", [0, 1])]


@pytest.mark.parametrize("store", [StoreRules(), TELLS, ALWAYS], indirect=True, ids=str)
@pytest.mark.parametrize("notify", [None, "NEVER", "SUCCESS", "DELAY", "FAILURE", "FAILURE,DELAY"])
def test_who_hears_of_failures(
    store: Store, notify: str | None, request: pytest.FixtureRequest
) -> None:
    rules = request.node.callspec.params["store"]
    message = accept(store, NewRecipient(address="b@cust.test", dsn_notify=notify))
    record(store, message, refused())
    says = rules.tells_failures if notify is None else "FAILURE" in notify
    assert bool(due(store)) is (says or rules.tells_always)
    assert rows(store) == len(due(store)), "nothing is written where nobody hears of it"
    assert (content_of(store, message) is None) is not bool(due(store))


@pytest.mark.parametrize("store", [TELLS, ALWAYS], indirect=True, ids=str)
def test_nobody_hears_of_mail_without_a_sender(store: Store) -> None:
    asked = NewRecipient(address="b@cust.test", dsn_notify="SUCCESS,FAILURE,DELAY")
    message = accept(store, asked, "c@cust.test", sender="")
    assert store.notices.note_delayed(-1000, start="", limit=9)
    record(store, message, refused(0), taken(1, is_relayed=True))
    assert rows(store) == 0


@pytest.mark.parametrize("state", [_R.BOUNCED, _R.EXPIRED, _R.BLOCKED])
def test_all_that_was_accepted_and_does_not_arrive_is_told(
    store: Store, state: RecipientState
) -> None:
    message = accept(store)
    record(store, message, refused(state=state))
    assert due(store) == [(message.queue_id, "failed", [0])]


def test_what_an_operator_lets_expire_is_told(store: Store) -> None:
    message = accept(store)
    entry = AuditEntry(
        at_ms=clock_ms(), actor="a", action="queue.expire", target="", affected=0, detail=""
    )
    store.queue.expire([message.queue_id], reason="ended", entry=entry)
    assert due(store) == [(message.queue_id, "failed", [0])]
    assert content_of(store, message) is not None


def test_what_was_dropped_or_deleted_on_purpose_is_not_told(store: Store) -> None:
    blocked = NewRecipient(address="b@cust.test", state=_R.BLOCKED, reason="on the block list")
    accept(store, blocked)
    message = accept(store)
    entry = AuditEntry(
        at_ms=clock_ms(), actor="a", action="queue.delete", target="", affected=0, detail=""
    )
    every = frozenset(DeliveryState)
    ids = [message.queue_id]
    store.queue.change_state(ids, from_states=every, to=DeliveryState.DELETED, entry=entry)
    assert rows(store) == 0


def test_what_is_recorded_without_a_lease_tells_nobody(store: Store) -> None:
    message = accept(store)
    store.leases.claim("default", limit=9, incarnation="one", now_ms=clock_ms() + 10)
    store.leases.give_back([(message.queue_id, 0)], incarnation="one")
    update = update_of(message.queue_id, recipients=(refused(),))
    lost = store.leases.record_batch([update], incarnation="one", now_ms=clock_ms()).lost
    assert lost == ((message.queue_id, 0),)
    assert rows(store) == 0


def test_an_outcome_that_is_recorded_again_is_told_once(store: Store) -> None:
    message = accept(store, "b@cust.test", "c@cust.test")
    store.leases.claim("default", limit=9, incarnation="one", now_ms=clock_ms() + 10)
    part = update_of(message.queue_id, recipients=(refused(0),), state=DeliveryState.ACTIVE)
    part = replace(part, due_at_ms=clock_ms() + 60_000)  # no other outcome has this time
    for _ in range(2):
        store.leases.record_batch([part], incarnation="one", now_ms=clock_ms())
    assert rows(store) == 1


def test_success_is_told_only_where_nobody_else_tells_it(store: Store) -> None:
    asked = [
        NewRecipient(address=f"{n}@cust.test", dsn_notify=notify)
        for n, notify in enumerate(("SUCCESS", "SUCCESS,FAILURE", "FAILURE"))
    ]
    message = accept(store, *asked)
    record(store, message, taken(0), taken(1, is_relayed=True), taken(2, is_relayed=True))
    assert due(store) == [(message.queue_id, "relayed", [1])]


def test_mail_that_waits_is_told_of_once_when_its_time_has_come(store: Store) -> None:
    waiting = NewRecipient(address="b@cust.test")
    never = NewRecipient(address="c@cust.test", dsn_notify="FAILURE")
    message = accept(store, waiting, never)
    assert store.notices.note_delayed(60_000, start="", limit=9) < message.queue_id
    with clock_at(store, clock_ms() + 61_000):
        after = store.notices.note_delayed(60_000, start="", limit=9)
        assert after > message.queue_id
        assert due(store) == [(message.queue_id, "delayed", [0])]
        (notice,) = store.notices.due(limit=9)
        assert store.notices.store_notice(notice, [], detail="")
        for start in ("", after):
            assert store.notices.note_delayed(60_000, start=start, limit=9) >= after
        assert due(store) == []


def test_a_long_queue_is_looked_through_in_steps(store: Store) -> None:
    messages = [accept(store) for _ in range(5)]
    with clock_at(store, clock_ms() + 61_000):
        start = ""
        for _ in range(3):
            start = store.notices.note_delayed(60_000, start=start, limit=2)
        assert len({queue_id for queue_id, *_ in due(store)}) == len(messages)


def test_one_that_cannot_be_made_waits_and_the_mail_stays_as_it_is(store: Store) -> None:
    message = accept(store)
    record(store, message, refused())
    before = store.queue.entries([message.queue_id])
    (notice,) = store.notices.due(limit=9)
    store.notices.put_off(notice, wait_ms=60_000)
    assert due(store) == []
    assert store.queue.entries([message.queue_id]) == before
    with clock_at(store, clock_ms() + 61_000):
        (again,) = store.notices.due(limit=9)
    assert (again.tries, again.recipients) == (1, notice.recipients)


def test_a_message_knows_that_it_is_a_notice(store: Store) -> None:
    message = accept(store, sender="", drop_id="notice-06ABCDEFGHJKMNPQR-failed-0-0")
    assert store.queue.record_of(message.queue_id).notice_of == "06ABCDEFGHJKMNPQR"
    assert store.queue.record_of(accept(store).queue_id).notice_of is None


def test_orcpt_is_kept_until_it_is_sent(store: Store) -> None:
    accept(store, NewRecipient(address="b@cust.test", dsn_orcpt="rfc822;b+2B1@cust.test"))
    (one,) = store.leases.claim("default", limit=9, incarnation="one", now_ms=clock_ms() + 10)
    assert one.recipients[0].dsn_orcpt == "rfc822;b+2B1@cust.test"


def test_a_notice_is_of_the_message_at_hand(store: Store) -> None:
    message = accept(store, dsn_ret="FULL", dsn_envid="o 1", smtputf8=True)
    record(store, message, refused())
    (notice,) = store.notices.due(limit=1)
    assert isinstance(notice, DueNotice)
    assert (notice.dsn_ret, notice.dsn_envid, notice.smtputf8) == ("FULL", "o 1", True)
    assert abs(notice.accepted_at_ms - message.accepted_at_ms) < 50_000
