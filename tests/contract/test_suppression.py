"""Suppressed addresses on every database: who is found at a claim, and what suppresses whom."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO

import pytest

from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import (
    ClaimedDelivery,
    DeliveryUpdate,
    NewDelivery,
    NewRecipient,
    RecipientUpdate,
    Warned,
)
from relaygw.mail.outcome import Stage, Verdict
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.suppression import ANY, Action, Cause, Listed, Suppression, SuppressionRules
from relaygw.mail.verdict import Event, Kind
from relaygw.operations.suppression import import_list
from relaygw.operations.suppression.forms import Defaults
from relaygw.operations.suppression.reading import read_list
from relaygw.store import feedback, suppression
from relaygw.store.audit import AuditEntry
from relaygw.store.database import Statement
from relaygw.store.feedback import MatchedEvent
from relaygw.store.outcomes import Recorded
from relaygw.store.rules import StoreRules
from relaygw.store.store import Store, open_store
from relaygw.store.suppression_list import SuppressionFilter, every_suppression
from tests.builders import accepted, instance, update_of
from tests.contract.conftest import clock_at
from tests.processes import PROCESSES

DAY_MS = 86_400_000
RULES = SuppressionRules(
    transactional=Action.WARN, promotional=Action.BLOCK, expire_ms=180 * DAY_MS
)
ANN = "ann@cust.test"


def opened(url: str, name: str = "one", rules: SuppressionRules = RULES) -> Store:
    store = open_store(url, rules=StoreRules(suppression=rules))
    store.instances.register(instance(name))
    return store


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = opened(url)
    yield store
    store.close()


def audit(affected: int = 1) -> AuditEntry:
    return AuditEntry(
        at_ms=clock_ms(),
        actor="ops",
        action="suppression.add",
        target=ANN,
        affected=affected,
        detail="",
    )


def entry(address: str = ANN, **more: object) -> Suppression:
    values = {"cause": Cause.MANUAL, "created_at_ms": clock_ms(), "source": "ops"}
    return Suppression(address=address, **values | more)  # type: ignore[arg-type]


def add(store: Store, *entries: Suppression) -> None:
    store.suppressions.suppress(entries, entry=audit(len(entries)))


def mail(
    store: Store, *people: str, stream: str = "promotional", sender: str = "news@shop.test"
) -> str:
    recipients = tuple(NewRecipient(address=one) for one in people or (ANN,))
    part = NewDelivery(route="default", stream=stream, recipients=recipients)
    message = accepted(at_ms=clock_ms(), deliveries=(part,), sender=sender)
    store.intake.accept_batch([message])
    return message.queue_id


def claim(store: Store, name: str = "one") -> list[ClaimedDelivery]:
    now_ms = clock_ms()
    return store.leases.claim("default", limit=50, incarnation=name, now_ms=now_ms)


def actions(claimed: ClaimedDelivery) -> dict[str, Action | None]:
    return {one.address: one.listed and one.listed.action for one in claimed.recipients}


def record(
    store: Store, claimed: ClaimedDelivery, *outcomes: RecipientUpdate, **more: object
) -> Recorded:
    update = update_of(claimed.queue_id, recipients=outcomes, **more)
    return store.leases.record_batch([update], incarnation="one", now_ms=clock_ms())


def refused(rcpt_no: int = 0, *, is_dead: bool = True) -> RecipientUpdate:
    return RecipientUpdate(
        rcpt_no=rcpt_no,
        state=RecipientState.BOUNCED,
        reply="550 5.1.1 no such user",
        dsn="5.1.1",
        provider="main",
        stage=Stage.RCPT,
        verdict=Verdict.BOUNCE,
        is_dead_address=is_dead,
    )


def event(queue_id: str, kind: Kind, *, key: str = "k", others: int = 0) -> MatchedEvent:
    told = Event(key=key, kind=kind, at_ms=clock_ms(), address=ANN, others=others, dsn="5.1.1")
    return MatchedEvent(provider="sendgrid", event=told, queue_id=queue_id, rcpt_no=0)


# --- at a claim ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "action"), [("promotional", Action.BLOCK), ("transactional", Action.WARN)]
)
def test_the_stream_decides_what_happens(store: Store, stream: str, action: Action) -> None:
    add(store, entry())
    mail(store, ANN, "bob@cust.test", stream=stream)
    (found,) = claim(store)
    assert actions(found) == {ANN: action, "bob@cust.test": None}


@pytest.mark.parametrize(
    ("suppressed", "written", "is_same"),
    [
        ("ann@cust.test", "Ann@CUST.test", True),
        ("ann@cust.test", '"ann"@cust.test', True),
        ("ann@cust.test", "ann+shop@cust.test", False),
        ("ann@cust.test", "ann@sub.cust.test", False),
        ("ann@xn--strae-oqa.test", "ann@straße.test", True),
        ("ann@strasse.test", "ann@straße.test", False),
        ("jörg@cust.test", "JÖRG@cust.test", True),
    ],
)
def test_a_mailbox_has_one_name(store: Store, suppressed: str, written: str, is_same: bool) -> None:
    add(store, entry(suppressed))
    mail(store, written)
    (found,) = claim(store)
    assert actions(found) == {written: Action.BLOCK if is_same else None}


@pytest.mark.parametrize(
    ("domain", "sender", "is_listed"),
    [
        (ANY, "news@shop.test", True),
        (ANY, "", True),
        ("shop.test", "news@Shop.test", True),
        ("shop.test", "news@other.test", False),
        ("shop.test", "news@sub.shop.test", False),
        ("shop.test", "", False),
        ("<>", "", True),
    ],
)
def test_it_is_about_mail_of_one_domain_or_of_all(
    store: Store, domain: str, sender: str, is_listed: bool
) -> None:
    add(store, entry(sender_domain=domain))
    mail(store, sender=sender)
    (found,) = claim(store)
    assert (found.recipients[0].listed is not None) is is_listed
    told = store.suppressions.listed_for([ANN], sender=sender, stream="promotional")
    assert list(told) == ([ANN] if is_listed else [])


def test_it_ends_by_the_clock_of_the_database(store: Store) -> None:
    now_ms = clock_ms()
    add(store, entry(expires_at_ms=now_ms + 60_000))
    queue_id = mail(store)
    assert actions(claim(store)[0]) == {ANN: Action.BLOCK}
    with clock_at(store, now_ms + 60_001):
        assert store.suppressions.suppressed(limit=9) == []
        assert store.suppressions.purge_suppressed(limit=9) == 1
    store.leases.give_back([(queue_id, 0)], incarnation="one")
    assert actions(claim(store)[0]) == {ANN: None}


def test_where_it_is_off_nothing_is_looked_up_or_noted(url: str) -> None:
    store = opened(url, rules=SuppressionRules())
    add(store, entry())
    mail(store, ANN)
    (found,) = claim(store)
    assert actions(found) == {ANN: None}
    sender = "news@shop.test"
    assert store.suppressions.listed_for([ANN], sender=sender, stream="promotional") == {}
    assert record(store, found, refused()).suppressed == ()
    store.close()


def test_a_second_instance_knows_it_at_once(url: str, store: Store) -> None:
    other = opened(url, "two")
    first = mail(store)
    (found,) = claim(store)
    store.feedback.take([event(first, Kind.HARD)])
    mail(store)
    (later,) = claim(other, "two")
    assert actions(later) == {ANN: Action.BLOCK}
    again = store.suppressions.looked_at_again(found)
    assert actions(again) == {ANN: Action.BLOCK}, "what was claimed before learns it as well"
    other.close()


def test_what_was_lifted_is_seen_by_who_has_claimed_before(store: Store) -> None:
    add(store, entry())
    mail(store)
    (found,) = claim(store)
    assert store.suppressions.lift([entry().key], entry=audit()) == 1
    assert actions(store.suppressions.looked_at_again(found)) == {ANN: None}
    assert store.suppressions.lift([entry().key], entry=audit()) == 0


def test_who_suppresses_while_others_claim_stops_all_that_are_not_begun(
    url: str, store: Store
) -> None:
    """Of what is claimed after the commit nothing is without it; errors of neither."""
    other = opened(url, "two")
    for _ in range(60):
        mail(store)
    found: list[ClaimedDelivery] = []

    def claim_all() -> None:
        while more := other.leases.claim("default", limit=3, incarnation="two", now_ms=clock_ms()):
            found.extend(more)

    thread = threading.Thread(target=claim_all)
    thread.start()
    add(store, entry())
    behind = next(iter(claim(store)), None)
    thread.join()
    listed = [one.recipients[0].listed is not None for one in found]
    assert listed == sorted(listed), "once it is seen it stays"
    if behind is not None:
        assert actions(behind) == {ANN: Action.BLOCK}
    assert all(one.recipients[0].listed for one in map(store.suppressions.looked_at_again, found))
    other.close()


# --- warned once a message -----------------------------------------------------------------


def test_a_warning_is_told_once_however_often_it_is_tried(store: Store) -> None:
    add(store, entry())
    mail(store, stream="transactional")
    (found,) = claim(store)
    (who,) = found.recipients
    assert who.listed is not None
    assert not who.listed.is_told
    waits = replace(refused(), state=RecipientState.PENDING, verdict=Verdict.RETRY)
    record(
        store,
        found,
        waits,
        state=DeliveryState.DEFERRED,
        due_at_ms=clock_ms() - 1,
        warned=(Warned(0, ANN, who.listed),),
    )
    (again,) = claim(store)
    assert again.recipients[0].listed == who.listed._replace(is_told=True)
    attempts = store.queue.attempts(found.queue_id)
    assert [one.state.value for one in attempts] == ["warned", "deferred"]
    assert attempts[0].reply == who.listed.sentence


# --- refusals ------------------------------------------------------------------------------


def refuse(
    store: Store, *people: str, sender: str = "news@shop.test", is_dead: bool = True
) -> tuple[Suppression, ...]:
    mail(store, *people, sender=sender)
    (found,) = claim(store)
    outcomes = [refused(one.rcpt_no, is_dead=is_dead) for one in found.recipients]
    return record(store, found, *outcomes).suppressed


def test_the_second_message_that_is_refused_suppresses(store: Store) -> None:
    assert refuse(store, ANN) == ()
    (told,) = refuse(store, "ANN@cust.test")
    assert (told.address, told.sender_domain, told.cause) == (ANN, "shop.test", Cause.REFUSED)
    assert told.source == "main"
    assert "550 5.1.1 no such user" in told.words
    assert told.expires_at_ms == told.created_at_ms + 180 * DAY_MS
    assert store.suppressions.suppressed(limit=9) == [told]
    mail(store)
    assert actions(claim(store)[0]) == {ANN: Action.BLOCK}


def test_recipients_alike_of_one_message_count_once(store: Store) -> None:
    assert refuse(store, ANN, "ANN@cust.test") == ()
    assert len(refuse(store, ANN, ANN)) == 1


def test_two_messages_in_one_batch_count_as_two(store: Store) -> None:
    for _ in range(2):
        mail(store)
    updates = [update_of(one.queue_id, recipients=(refused(),)) for one in claim(store)]
    told = store.leases.record_batch(updates, incarnation="one", now_ms=clock_ms())
    assert [one.address for one in told.suppressed] == [ANN]


@pytest.mark.parametrize("what", ["other domain", "other reply", "long ago"])
def test_what_is_no_second_refusal(store: Store, what: str) -> None:
    refuse(store, ANN)
    if what == "other domain":
        assert refuse(store, ANN, sender="a@other.test") == ()
    elif what == "other reply":
        assert refuse(store, ANN, is_dead=False) == ()
    else:
        with store.database.write() as tx:
            before = {"ms": clock_ms() - 181 * DAY_MS}
            tx.connection.exec_driver_sql(f"UPDATE refusal SET refused_at_ms = {before['ms']}")
        assert refuse(store, ANN) == ()
        assert len(refuse(store, ANN)) == 1


def test_an_outcome_that_is_told_again_counts_once(store: Store) -> None:
    mail(store)
    (found,) = claim(store)
    update = update_of(found.queue_id, recipients=(refused(),))
    for _ in range(2):
        done = store.leases.record_batch([update], incarnation="one", now_ms=clock_ms())
        assert done.suppressed == ()


def test_lifting_it_forgets_the_refusals(store: Store) -> None:
    refuse(store, ANN)
    (told,) = refuse(store, ANN)
    store.suppressions.lift([told.key], entry=audit())
    assert refuse(store, ANN) == ()
    assert store.suppressions.forget_refusals(DAY_MS) == 0
    with clock_at(store, clock_ms() + 2 * DAY_MS):
        assert store.suppressions.forget_refusals(DAY_MS) == 1


# --- verdicts ------------------------------------------------------------------------------

SUPPRESSED_FOR = {
    Kind.HARD: Cause.BOUNCE,
    Kind.COMPLAINED: Cause.COMPLAINT,
    Kind.UNSUBSCRIBED: Cause.UNSUBSCRIBE,
}


@pytest.mark.parametrize("kind", Kind)
def test_only_hard_bounces_complaints_and_unsubscribes_suppress(store: Store, kind: Kind) -> None:
    queue_id = mail(store)
    store.feedback.take([event(queue_id, kind)])
    found = store.suppressions.suppressed(limit=9)
    cause = SUPPRESSED_FOR.get(kind)
    assert [one.cause for one in found] == ([] if cause is None else [cause])
    for one in found:
        assert (one.sender_domain, one.source, one.queue_id) == ("shop.test", "sendgrid", queue_id)
        is_lasting = kind is Kind.UNSUBSCRIBED
        assert (one.stream, one.expires_at_ms is None) == (
            "promotional" if is_lasting else ANY,
            is_lasting,
        )


def test_a_complaint_that_names_several_suppresses_nobody(store: Store) -> None:
    queue_id = mail(store)
    store.feedback.take([event(queue_id, Kind.COMPLAINED, others=1)])
    assert store.suppressions.suppressed(limit=9) == []
    store.feedback.take([event(queue_id, Kind.HARD, key="2", others=1)])
    assert len(store.suppressions.suppressed(limit=9)) == 1


def test_an_event_is_no_reason_twice(store: Store) -> None:
    queue_id = mail(store)
    store.feedback.take([event(queue_id, Kind.HARD)])
    (told,) = store.suppressions.suppressed(limit=9)
    store.suppressions.lift([told.key], entry=audit())
    store.feedback.take([event(queue_id, Kind.HARD)])
    assert store.suppressions.suppressed(limit=9) == []


def test_the_graver_cause_and_the_later_end_stand(store: Store) -> None:
    queue_id = mail(store)
    store.feedback.take([event(queue_id, Kind.COMPLAINED)])
    (first,) = store.suppressions.suppressed(limit=9)
    store.feedback.take([event(queue_id, Kind.HARD, key="2")])
    (then,) = store.suppressions.suppressed(limit=9)
    assert (then.cause, then.created_at_ms) == (Cause.COMPLAINT, first.created_at_ms)
    assert then.expires_at_ms is not None
    assert first.expires_at_ms is not None
    assert then.expires_at_ms >= first.expires_at_ms


def test_an_unsubscribe_stops_promotional_mail_only(store: Store) -> None:
    queue_id = mail(store)
    claim(store)
    store.feedback.take([event(queue_id, Kind.UNSUBSCRIBED)])
    mail(store, stream="transactional")
    mail(store, stream="promotional")
    by_stream = {one.stream: actions(one)[ANN] for one in claim(store)}
    assert by_stream == {"transactional": None, "promotional": Action.BLOCK}


def take_and_die(url: str, queue_id: str, at: str) -> None:
    """Take an event; the process is killed at a step of that."""

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    store = open_store(url, rules=StoreRules(suppression=RULES))
    if at == "before it is suppressed":
        suppression.join = die  # type: ignore[assignment]
    elif at == "before the commit":
        feedback._REMOVE.run = die  # type: ignore[method-assign]
    store.feedback.take([event(queue_id, Kind.HARD)])
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("at", ["before it is suppressed", "before the commit", "after the commit"])
def test_killed_at_any_step_the_event_and_its_effect_are_one(
    url: str, store: Store, at: str
) -> None:
    queue_id = mail(store)
    process = PROCESSES.Process(target=take_and_die, args=(url, queue_id, at))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    is_done = at == "after the commit"
    assert len(store.suppressions.suppressed(limit=9)) == is_done
    assert len(store.feedback.take([event(queue_id, Kind.HARD)])) == (not is_done)
    assert len(store.suppressions.suppressed(limit=9)) == 1


def test_two_instances_that_record_a_refusal_at_once_count_two(url: str, store: Store) -> None:
    other = opened(url, "two")
    for number in range(20):
        address = f"u{number}@cust.test"
        first, second = mail(store, address), mail(store, address)
        assert {one.queue_id for one in claim(store)} == {first, second}
        updates = [update_of(one, recipients=(refused(),)) for one in (first, second)]
        barrier = threading.Barrier(2)

        def tell(
            where: Store, update: DeliveryUpdate, barrier: threading.Barrier = barrier
        ) -> None:
            barrier.wait()
            where.leases.record_batch([update], incarnation="one", now_ms=clock_ms())

        threads = [
            threading.Thread(target=tell, args=(where, update))
            for where, update in zip((store, other), updates, strict=True)
        ]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert list(store.suppressions.suppressed_of([address])) == [address]
    other.close()


# --- the list ------------------------------------------------------------------------------


def test_pages_have_each_once_while_others_are_added(store: Store) -> None:
    entries = [entry(f"u{n}@cust.test", created_at_ms=1_000 + n // 10) for n in range(95)]
    add(store, *entries)
    seen = []
    for one in every_suppression(store.suppressions, step=10):
        if len(seen) % 10 == 5:
            add(store, entry(f"new{len(seen)}@cust.test"))
        seen.append(one.address)
    assert sorted(seen) == sorted(one.address for one in entries)
    wanted = SuppressionFilter(text="NEW5", causes=frozenset({Cause.MANUAL}))
    assert [one.address for one in store.suppressions.suppressed(limit=9, wanted=wanted)] == [
        "new5@cust.test",
        "new55@cust.test",
    ][::-1]
    assert store.suppressions.count_suppressed(most=50) == 50
    assert store.suppressions.count_suppressed(wanted, most=50) == 2
    other = SuppressionFilter(sender_domain="shop.test", stream="promotional")
    assert store.suppressions.count_suppressed(other, most=50) == 0


def test_what_is_there_already_is_no_change(store: Store) -> None:
    one = entry(cause=Cause.BOUNCE, expires_at_ms=clock_ms() + DAY_MS)
    assert store.suppressions.suppress_batch([one, one], entry=None) == 1
    assert store.suppressions.suppress_batch([one], entry=None) == 0
    longer = replace(one, expires_at_ms=None)
    assert store.suppressions.suppress_batch([longer], entry=audit(1)) == 0
    assert store.suppressions.suppressed_of(["ANN@cust.test", "x@y.test"]) == {ANN: [longer]}
    (told,) = store.audit.entries(limit=9)
    assert told.affected == 1


def test_a_list_that_was_just_imported_is_looked_up_by_its_key(url: str, store: Store) -> None:
    lines = b"".join(b"u%d@cust.test,BOUNCE\n" % number for number in range(20_000))
    assert claim(store) == []  # plans may be of when it was short
    reading = read_list(BytesIO(lines), Defaults(now_ms=clock_ms()))
    import_list(store, reading, name="x", actor="ops", now_ms=clock_ms(), tell=print)
    explain = "EXPLAIN " if url.startswith("postgresql") else "EXPLAIN QUERY PLAN "
    asked = Statement(explain + suppression._LISTED.text(50).replace("?", "{?}"))
    pairs = [text for number in range(50) for text in (f"v{number}@cust.test", "shop.test")]
    with store.database.read() as tx:
        plan = " ".join(str(row) for row in asked.fetch(tx, *pairs, 1))
    assert "suppression_pkey" in plan or "PRIMARY KEY (address=?" in plan, plan


def test_many_that_events_suppressed_are_counted(store: Store) -> None:
    queue_id = mail(store)
    store.feedback.take([event(queue_id, Kind.HARD)])
    add(store, entry("x@cust.test"))
    assert store.suppressions.suppressed_lately(60_000) == 1


def test_the_sentence_says_why_and_what_to_do() -> None:
    one = Listed(
        entry(sender_domain="shop.test", cause=Cause.BOUNCE, source="ses", created_at_ms=0),
        Action.BLOCK,
    )
    assert one.sentence == (
        "suppressed: hard bounce, ses, 1970-01-01 00:00 UTC; "
        "relaygw suppress remove ann@cust.test --sender-domain shop.test lifts it"
    )
