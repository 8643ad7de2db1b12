"""What receivers of webhooks are told: written with the change, sent in order, kept for a while."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select, update

from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import NewRecipient, RecipientUpdate
from relaygw.mail.outcome import Verdict
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.verdict import Kind, Told
from relaygw.policy.receivers import Endpoint
from relaygw.store.audit import AuditEntry
from relaygw.store.outbox import Sent, WebhookEvent, WebhookPost
from relaygw.store.queue_tables import recipient
from relaygw.store.reports import NewVerdict
from relaygw.store.rules import StoreRules, WebhookRule
from relaygw.store.side_tables import webhook_event
from relaygw.store.store import Store, open_store
from relaygw.store.webhooks import add_verdicts
from tests.builders import accepted, instance, part_on, taken, update_of
from tests.contract.conftest import clock_at
from tests.contract.test_store_contract import claim, defer, finish

EVERYTHING = frozenset(kind.value for kind in Told)
SHOP = WebhookRule("shop", EVERYTHING)
DAY_MS = 86_400_000


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """Return a store that tells one receiver of everything, and another of bounces."""
    rules = StoreRules(webhooks=(SHOP, WebhookRule("desk", frozenset({"bounced"}))))
    store = open_store(url, rules=rules)
    store.instances.register(instance("one"))
    store.outbox.see_endpoints({"shop": "shop (https://shop.test/***)", "desk": "desk"})
    yield store
    store.close()


def entry(action: str = "webhooks.replay") -> AuditEntry:
    return AuditEntry(
        at_ms=clock_ms(), actor="a", action=action, target="shop", affected=0, detail=""
    )


def post_of(store: Store, endpoint: str = "shop", *, limit: int = 100) -> WebhookPost | None:
    return store.outbox.next_post(endpoint, limit=limit, fits=len)


def told(store: Store, endpoint: str = "shop") -> list[tuple[str, int, str]]:
    """Return what would be sent now, in its order."""
    post = post_of(store, endpoint)
    return [(one.queue_id, one.rcpt_no, one.kind) for one in post.events] if post else []


def events(store: Store) -> list[WebhookEvent]:
    post = post_of(store)
    return list(post.events) if post else []


def endpoint(store: Store, name: str = "shop") -> Endpoint:
    return next(one for one in store.outbox.endpoints() if one.endpoint == name)


def refuse(store: Store, name: str = "shop", **more: Any) -> bool:
    values = {"wait_ms": 1000, "pause_after_ms": DAY_MS, "is_gone": False}
    return store.outbox.note_refused(name, "answered 500", **values | more)


def send(store: Store, name: str = "shop", *, limit: int = 100) -> WebhookPost:
    post = post_of(store, name, limit=limit)
    assert post is not None
    store.outbox.note_taken(name, post.post_id)
    return post


def deliver(store: Store, *addresses: str, **more: Any) -> str:
    message = accepted(*addresses, **more)
    store.intake.accept_batch([message])
    (one,) = claim(store)
    rcpt_nos = tuple(one.rcpt_no for one in one.recipients)
    outcome = finish(message.queue_id, rcpt_nos=rcpt_nos)
    store.leases.record_batch([outcome], incarnation="one", now_ms=clock_ms())
    return message.queue_id


# --- what is written --------------------------------------------------------------------------


def test_an_outcome_is_told_with_what_a_shop_needs(store: Store) -> None:
    queue_id = deliver(store, "b@cust.test", link_value="100000123")
    (one,) = events(store)
    assert (one.queue_id, one.kind, one.verdict) == (queue_id, "delivered", None)
    assert (one.address, one.sender) == ("b@cust.test", "a@shop.test")
    assert (one.message_id, one.link_value) == ("<1@shop.test>", "100000123")
    assert (one.provider, one.reply, one.dsn) == ("main", "250 2.0.0 Ok", "2.0.0")
    assert abs(one.at_ms - clock_ms()) < 60_000
    assert told(store, "desk") == []


def test_each_recipient_and_each_step_is_told_in_order(store: Store) -> None:
    message = accepted("b@cust.test", "c@cust.test")
    store.intake.accept_batch([message])
    claim(store)
    put_off = defer(message.queue_id, due_at_ms=0)
    store.leases.record_batch([put_off], incarnation="one", now_ms=clock_ms())
    claim(store, now_ms=clock_ms())
    bounced = RecipientUpdate(
        rcpt_no=1, state=RecipientState.BOUNCED, reply="550 no", dsn="5.1.1", provider="main"
    )
    outcome = update_of(message.queue_id, due_at_ms=1, recipients=(taken(0), bounced))
    store.leases.record_batch([outcome], incarnation="one", now_ms=clock_ms())
    steps = [(number, kind) for _, number, kind in told(store)]
    assert steps[0] == (0, "deferred")
    assert sorted(steps[1:]) == [(0, "delivered"), (1, "bounced")]
    assert told(store, "desk") == [(message.queue_id, 1, "bounced")]


@pytest.mark.parametrize(
    ("verdict", "charged"), [(Verdict.THROTTLE, False), (Verdict.HOLD, True), (Verdict.DOUBT, True)]
)
def test_what_only_waits_its_turn_is_not_told(
    store: Store, verdict: Verdict, charged: bool
) -> None:
    message = accepted()
    store.intake.accept_batch([message])
    claim(store)
    outcome = defer(message.queue_id, due_at_ms=0)
    (one,) = outcome.recipients
    waits = replace(outcome, recipients=(replace(one, verdict=verdict, charged=charged),))
    store.leases.record_batch([waits], incarnation="one", now_ms=clock_ms())
    assert told(store) == []


def test_an_outcome_that_is_refused_is_not_told_and_one_told_twice_once(store: Store) -> None:
    message = accepted()
    store.intake.accept_batch([message])
    claim(store)
    outcome = finish(message.queue_id)
    store.instances.register(instance("other"))
    store.leases.record_batch([outcome], incarnation="other", now_ms=clock_ms())
    store.leases.record_batch([outcome], incarnation="buried", now_ms=clock_ms())
    assert told(store) == []
    for _ in range(2):
        store.leases.record_batch([outcome], incarnation="one", now_ms=clock_ms())
    assert len(told(store)) == 1


def test_what_is_captured_or_blocked_when_it_comes_is_told(store: Store) -> None:
    states = (RecipientState.CAPTURED, RecipientState.PENDING, RecipientState.BLOCKED)
    people = [
        NewRecipient(address=f"{state.value}@cust.test", state=state, reason="why")
        for state in states
    ]
    message = accepted(*people)
    second = replace(part_on("other"), recipients=(people[0],))
    message = replace(message, deliveries=(*message.deliveries, second))
    store.intake.accept_batch([message])
    found = {(one.rcpt_no, one.kind, one.address, one.reply) for one in events(store)}
    assert found == {
        (0, "captured", "captured@cust.test", "why"),
        (2, "blocked", "blocked@cust.test", "why"),
        (3, "captured", "captured@cust.test", "why"),
    }


def test_what_operators_end_is_told(store: Store) -> None:
    gone, over = accepted(), accepted()
    store.intake.accept_batch([gone, over])
    everything = frozenset(DeliveryState)
    for _ in range(2):  # the second finds nothing to do
        store.queue.change_state(
            [gone.queue_id], from_states=everything, to=DeliveryState.DELETED, entry=entry()
        )
        store.queue.expire([over.queue_id], reason="by hand", entry=entry())
    assert sorted(told(store)) == sorted(
        [(gone.queue_id, 0, "cancelled"), (over.queue_id, 0, "expired")]
    )
    store.queue.undelete([gone.queue_id], entry=entry())
    assert len(told(store)) == 2


def verdict(queue_id: str, kind: Kind, *, is_last_word: bool = True, at_ms: int = 1) -> NewVerdict:
    return NewVerdict(
        queue_id=queue_id,
        rcpt_no=0,
        address="b@cust.test",
        kind=kind,
        at_ms=at_ms,
        provider="main",
        dsn="5.1.1",
        detail="no such user",
        others=0,
        is_last_word=is_last_word,
    )


def note(store: Store, *verdicts: NewVerdict) -> None:
    with store.database.write() as tx:
        add_verdicts(tx, verdicts, StoreRules(webhooks=(SHOP,)))


def test_a_verdict_is_told_by_the_name_a_shop_knows(store: Store) -> None:
    queue_id = deliver(store)
    note(store, *(verdict(queue_id, kind) for kind in Kind))
    assert [(one.kind, one.verdict) for one in events(store)] == [
        ("delivered", None),
        ("delayed", "deferred"),
        ("arrived", "delivered"),
        *(("bounced", kind) for kind in ("hard", "soft", "blocked", "rejected")),
        ("complained", "complained"),
        ("unsubscribed", "unsubscribed"),
    ]
    assert events(store)[-1].reply == "no such user"


def test_a_verdict_that_is_outweighed_is_told_only_where_it_is_news(store: Store) -> None:
    late = [verdict("Q", kind, is_last_word=False) for kind in Kind]
    note(store, *late)
    kinds = [one.kind for one in events(store)]
    assert kinds == ["bounced"] * 4 + ["complained", "unsubscribed"]


@pytest.mark.parametrize(
    ("at_ms", "told_ms"), [(-(2**62), 0), (-1, 0), (2**62, 253_402_300_799_000)]
)
def test_a_time_that_no_calendar_has_is_cut(store: Store, at_ms: int, told_ms: int) -> None:
    note(store, verdict("Q", Kind.HARD, at_ms=at_ms))
    (one,) = events(store)
    assert one.at_ms == told_ms


def test_without_receivers_nothing_is_written(url: str) -> None:
    store = open_store(url)
    store.instances.register(instance("one"))
    deliver(store)
    with store.database.read() as tx:
        assert tx.execute(select(func.count()).select_from(webhook_event)).scalar() == 0
    store.close()


# --- sending ----------------------------------------------------------------------------------


def test_a_post_is_the_same_until_it_was_taken(store: Store) -> None:
    first = deliver(store)
    post = post_of(store)
    later = deliver(store)
    refuse(store, wait_ms=0)
    again = post_of(store)
    assert post is not None
    assert again is not None
    assert (again.post_id, again.events) == (post.post_id, post.events)
    assert (post.failures, again.failures) == (0, 1)
    store.outbox.note_taken("shop", "another")
    store.outbox.note_taken("shop", post.post_id)
    store.outbox.note_taken("shop", post.post_id)  # as of one that was killed in between
    following = post_of(store)
    assert following is not None
    assert following.post_id != post.post_id
    assert [one.queue_id for one in (*post.events, *following.events)] == [first, later]
    assert following.failures == 0


@pytest.mark.parametrize("is_taken", [False, True])
def test_a_post_that_another_began_meanwhile_is_not_made_again(
    store: Store, is_taken: bool
) -> None:
    first = deliver(store)
    others: list[WebhookPost] = []

    def meanwhile(events: Sequence[WebhookEvent]) -> int:
        post = send(store) if is_taken else post_of(store)
        assert post is not None
        others.append(post)
        return len(events)

    assert store.outbox.next_post("shop", limit=100, fits=meanwhile) is None
    assert [one.queue_id for one in others[0].events] == [first]
    later = deliver(store)
    following = post_of(store)
    assert following is not None
    left = [later] if is_taken else [first]
    assert [one.queue_id for one in following.events] == left
    assert is_taken or following.post_id == others[0].post_id


def test_a_post_has_so_many_events_and_no_more_than_fit(store: Store) -> None:
    ids = [deliver(store) for _ in range(5)]
    assert [one.queue_id for one in send(store, limit=2).events] == ids[:2]
    small = store.outbox.next_post("shop", limit=100, fits=lambda _: 0)
    assert small is not None
    assert [one.queue_id for one in small.events] == ids[2:3], "one at least"
    # a post that is under way stays whole, whatever the limits are by now
    store.outbox.note_taken("shop", small.post_id)
    wide = post_of(store)
    assert wide is not None
    again = store.outbox.next_post("shop", limit=1, fits=lambda _: 1)
    assert again == replace(wide, is_full=True)


def test_a_receiver_that_failed_waits_and_does_not_hold_up_others(store: Store) -> None:
    message = accepted()
    store.intake.accept_batch([message])
    claim(store)
    bounced = replace(taken(0), state=RecipientState.BOUNCED)
    outcome = update_of(message.queue_id, recipients=(bounced,))
    store.leases.record_batch([outcome], incarnation="one", now_ms=clock_ms())
    assert told(store)
    refuse(store, wait_ms=60_000)
    assert told(store) == []
    assert told(store, "desk")
    with clock_at(store, clock_ms() + 61_000):
        assert told(store)
    one = endpoint(store)
    assert (one.failures, one.waiting, one.last_error) == (1, 1, "answered 500")
    assert one.oldest_at_ms is not None
    assert abs(one.next_at_ms - clock_ms() - 60_000) < 50_000


def test_it_is_paused_after_a_day_of_failure_and_goes_on_by_itself(store: Store) -> None:
    queue_id = deliver(store)
    told(store)
    began_ms = clock_ms()
    with clock_at(store, began_ms):
        assert not refuse(store)
    with clock_at(store, began_ms + DAY_MS - 1):
        assert not refuse(store)
    with clock_at(store, began_ms + DAY_MS):
        assert refuse(store)
        assert not refuse(store), "told once"
        assert endpoint(store).paused_at_ms is not None
    with clock_at(store, began_ms + DAY_MS + 1000):
        post = send(store)
        assert [one.queue_id for one in post.events] == [queue_id]
        assert post.is_paused
    one = endpoint(store)
    assert (one.paused_at_ms, one.failing_since_ms, one.failures, one.last_error) == (
        *(None, None),
        *(0, None),
    )


def test_one_that_is_gone_is_asked_only_when_somebody_says_so(store: Store) -> None:
    deliver(store)
    told(store)
    refuse(store, wait_ms=0, is_gone=True)
    with clock_at(store, clock_ms() + 10 * DAY_MS):
        assert told(store) == []
    assert endpoint(store).disabled_at_ms is not None
    assert store.outbox.resume("shop", entry=entry("webhooks.resume"))
    assert not store.outbox.resume("nobody", entry=entry("webhooks.resume"))
    send(store)
    assert endpoint(store).disabled_at_ms is None
    assert store.audit.entries(limit=1)[0].action == "webhooks.resume"


def test_an_unknown_receiver_gets_nothing(store: Store) -> None:
    assert post_of(store, "unknown") is None
    assert not refuse(store, "unknown")
    store.outbox.note_taken("unknown", "x")


# --- once more --------------------------------------------------------------------------------


def which(**more: Any) -> Sent:
    return Sent(endpoints=["shop"], **{"before_ms": clock_ms() + 1000} | more)


def test_what_was_sent_is_sent_again_in_order_before_what_waits(store: Store) -> None:
    ids = [deliver(store) for _ in range(3)]
    first = send(store)
    ids.append(deliver(store))
    assert store.outbox.count_sent(which()) == 3
    assert store.outbox.send_again(which(), entry=replace(entry(), affected=3)) == 3
    assert store.outbox.send_again(which(), entry=None) == 0
    post = post_of(store)
    assert post is not None
    assert [one.queue_id for one in post.events] == ids
    assert post.post_id != first.post_id, "a receiver that knows the first one takes it"
    (line,) = store.audit.entries(limit=5)
    assert (line.action, line.affected) == ("webhooks.replay", 3)


def test_only_what_is_chosen_goes_again(store: Store) -> None:
    old = deliver(store)
    send(store)
    soon_ms = clock_ms() + 3_600_000
    with clock_at(store, soon_ms):
        message = accepted()
        store.intake.accept_batch([message])
        claim(store)
        done = finish(message.queue_id)
        store.leases.record_batch([done], incarnation="one", now_ms=soon_ms)
        send(store)
    before = {"before_ms": soon_ms + 1000}
    assert store.outbox.count_sent(which(since_ms=soon_ms - 1000, **before)) == 1
    for before_ms, count in ((soon_ms, 0), (soon_ms + 1, 1)):
        of_then = which(since_ms=soon_ms - 1000, before_ms=before_ms)
        assert store.outbox.count_sent(of_then) == count
    assert store.outbox.count_sent(which(queue_ids=[old], **before)) == 1
    assert store.outbox.count_sent(which(queue_ids=[old], since_ms=soon_ms, **before)) == 0
    assert store.outbox.count_sent(Sent(endpoints=["desk"], **before)) == 0
    assert store.outbox.send_again(which(queue_ids=[old], **before), entry=None) == 1
    assert [one.queue_id for one in events(store)] == [old]


def test_many_are_sent_again_step_by_step(store: Store) -> None:
    rows = [verdict(f"Q{number:04}", Kind.HARD) for number in range(501)]
    note(store, *rows)
    while post_of(store):
        send(store)
    chosen = which()
    steps = [store.outbox.send_again(chosen, entry=None) for _ in range(3)]
    assert steps == [500, 1, 0]


# --- how long it is kept ----------------------------------------------------------------------


def test_it_is_kept_for_the_retention_after_it_was_sent_and_dropped_when_it_waited_so_long(
    store: Store,
) -> None:
    began_ms = clock_ms()
    for number in range(2):
        note(store, verdict(f"Q{number}", Kind.HARD))
    send(store, limit=1)
    assert store.outbox.forget_told(DAY_MS) == (False, {})
    assert store.outbox.count_sent(which()) == 1
    with clock_at(store, began_ms + DAY_MS + 60_000):
        assert store.outbox.forget_told(DAY_MS) == (False, {"shop": 1})
        assert store.outbox.forget_told(DAY_MS) == (False, {})
        assert told(store) == []
    assert store.outbox.count_sent(which()) == 0
    one = endpoint(store)
    assert (one.dropped, one.waiting) == (1, 0)
    assert one.dropped_at_ms is not None


def test_a_post_goes_on_with_what_is_left_of_it(store: Store) -> None:
    began_ms = clock_ms()
    note(store, verdict("OLD", Kind.HARD))
    with clock_at(store, began_ms + DAY_MS):
        note(store, verdict("NEW", Kind.HARD))
        post = post_of(store)
    with clock_at(store, began_ms + DAY_MS + 60_000):
        store.outbox.forget_told(DAY_MS)
        left = post_of(store)
        assert post is not None
        assert left is not None
        assert left.post_id == post.post_id
        assert [one.queue_id for one in left.events] == ["NEW"]
        store.outbox.note_taken("shop", left.post_id)
        assert post_of(store) is None


def test_mail_may_be_deleted_before_it_is_told(store: Store) -> None:
    queue_id = deliver(store)
    with clock_at(store, clock_ms() + DAY_MS):
        while store.janitor.purge({"finished": 0}, limit=10):
            pass
    (one,) = events(store)
    assert (one.queue_id, one.kind, one.address, one.sender) == (queue_id, "delivered", None, None)


def test_a_receiver_that_is_in_no_settings_goes_with_what_it_was_to_be_told(store: Store) -> None:
    note(store, *(verdict(f"Q{number}", Kind.HARD) for number in range(501)))
    seen = store.outbox.see_endpoints({})
    with clock_at(store, clock_ms() + 1000):
        now_seen = store.outbox.see_endpoints({"shop": "shop"})
    assert store.outbox.forget_endpoint("shop", seen_at_ms=seen["shop"]) is None, "it is back"
    steps = [store.outbox.forget_endpoint("shop", seen_at_ms=now_seen["shop"]) for _ in range(4)]
    assert steps == [500, 1, None, None]
    assert [one.endpoint for one in store.outbox.endpoints()] == ["desk"]
    assert told(store) == []


def test_what_an_event_settled_meanwhile_is_not_told_again_by_its_worker(store: Store) -> None:
    message = accepted()
    store.intake.accept_batch([message])
    claim(store)
    with store.database.write() as tx:  # as doubts.settle does
        changes = {"state": RecipientState.DELIVERED.value, "changed_at_ms": 1}
        tx.execute(update(recipient).values(changes))
    put_off = defer(message.queue_id, due_at_ms=5)
    for outcome in (put_off, finish(message.queue_id)):
        store.leases.record_batch([outcome], incarnation="one", now_ms=clock_ms())
        claim(store, now_ms=clock_ms())
    assert told(store) == []
