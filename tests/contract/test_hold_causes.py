"""Why mail is held: codes that the queue keeps, also for what older versions held or hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import DeliveryUpdate, NewRecipient
from relaygw.mail.hold import HoldCause, HoldCode, cause_of, provider_down, sender_refused
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store import migrate
from relaygw.store.database import Place
from relaygw.store.holds import PAUSED, Hold
from relaygw.store.queue_entry import DeliveryEntry
from relaygw.store.store import Store, open_store
from tests.builders import NOW_MS, accepted
from tests.contract.conftest import clock_at

D = DeliveryState
REFUSED = sender_refused("shop.test", ["main", "spare"])
OPERATOR = HoldCause(HoldCode.OPERATOR, "ask first")
HOLDS = {
    "main": "20 messages in a row were refused alike: 550 no",
    "spare": "operator: holidays",
    "third": "535 5.7.8 bad key",
}
CAUSES = [
    HoldCause(HoldCode.MODE),
    HoldCause(HoldCode.POISON),
    HoldCause(HoldCode.IN_DOUBT),
    HoldCause(HoldCode.RECOVERED),
    HoldCause(HoldCode.RESTORED),
    REFUSED,
    HoldCause(HoldCode.NO_SENDER, "default a@shop.test"),
    HoldCause(HoldCode.OVER_QUOTA, "default 7"),
    HoldCause(HoldCode.NEEDS_8BITMIME, "default it is signed"),
    HoldCause(HoldCode.HEADER, "field Bcc cannot be read"),
    HoldCause(HoldCode.LOST_PROVIDER, "main default"),
    OPERATOR,
    HoldCause(HoldCode.OTHER, "what nobody has thought of"),
]


def held(store: Store, cause: HoldCause, **more: Any) -> str:
    """Hold a message for a cause; return its queue id."""
    message = accepted()
    store.intake.accept_batch([message])
    (claimed,) = store.leases.claim("default", limit=1, incarnation="one", now_ms=NOW_MS + 1)
    values = {
        "queue_id": claimed.queue_id,
        "delivery_no": 0,
        "state": D.HELD,
        "due_at_ms": NOW_MS,
        "provider": "main",
        "reason": cause.sentence,
        "recipients": (),
        "hold": cause,
        "charged": False,
    }
    store.leases.record_batch(
        [DeliveryUpdate(**values | more)], incarnation="one", now_ms=NOW_MS + 2
    )
    return message.queue_id


def part_of(store: Store, queue_id: str) -> DeliveryEntry:
    (entry,) = store.queue.entries([queue_id])
    return entry.deliveries[0]


def change(store: Store, sql: str, **values: Any) -> None:
    """Do what an instance of a version before schema 0007 does."""
    with store.database.write() as tx:
        tx.execute(text(sql), values)


@pytest.mark.parametrize("cause", CAUSES, ids=lambda one: one.code)
def test_a_cause_is_read_as_it_was_written_and_ends_with_the_hold(
    store: Store, cause: HoldCause
) -> None:
    queue_id = held(store, cause)
    assert part_of(store, queue_id).hold == cause
    assert [one.cause for one in store.holds.held_mail()] == [cause]
    assert store.holds.held_causes() == [cause]
    assert store.holds.release_held(cause, limit=9).due == 1
    part = part_of(store, queue_id)
    assert (part.state, part.hold, part.reason) == (D.DEFERRED, None, cause.sentence)


def test_mail_that_probes_a_hold_tells_whoever_claims_it(store: Store) -> None:
    queue_id, other = sorted(held(store, REFUSED) for _ in range(2))
    domain, (first, *_) = REFUSED.domain, REFUSED.providers
    probing = sender_refused(domain, [first])
    assert store.holds.release_held(REFUSED, limit=1, probing=probing).due == 1
    part = part_of(store, queue_id)
    assert (part.state, part.hold, part.reason) == (D.DEFERRED, probing, probing.sentence)
    assert store.holds.held_causes() == [REFUSED], "the other one waits"
    now_ms = store.clock_ms()
    (claimed,) = store.leases.claim("default", limit=9, incarnation="one", now_ms=now_ms)
    assert (claimed.queue_id, claimed.probes) == (queue_id, first)
    assert store.holds.release_held(REFUSED, limit=1).due == 1
    (claimed,) = store.leases.claim("default", limit=9, incarnation="one", now_ms=now_ms + 1000)
    assert (claimed.queue_id, claimed.probes) == (other, None)


def test_mail_may_be_held_from_the_start(store: Store) -> None:
    blocked = NewRecipient(address="b@x.test", state=RecipientState.BLOCKED)
    waits, over = accepted(), accepted(blocked)
    store.intake.accept_batch([waits, over], hold=OPERATOR)
    part = part_of(store, waits.queue_id)
    assert (part.state, part.hold) == (D.HELD, OPERATOR)
    assert part_of(store, over.queue_id).state is D.FINISHED
    assert store.leases.claim("default", limit=9, incarnation="one", now_ms=NOW_MS + 1) == []
    assert store.holds.release_held(OPERATOR, limit=9).due == 1


def test_what_an_older_version_holds_is_coded_when_it_is_looked_for(store: Store) -> None:
    ids = {cause: held(store, cause, hold=None) for cause in CAUSES}
    assert {cause: part_of(store, ids[cause]).hold for cause in CAUSES} == {
        cause: cause for cause in CAUSES
    }
    assert {one.cause for one in store.holds.held_mail()} == set(CAUSES)
    assert store.holds.release_held(REFUSED, limit=9).due == 0, "not looked for yet"
    assert store.holds.held_causes() == sorted(CAUSES)
    for cause in CAUSES:
        assert store.holds.release_held(cause, limit=9).due == 1
    assert store.holds.held_causes() == []


def test_a_code_that_an_older_version_left_behind_does_not_count(store: Store) -> None:
    queue_id = held(store, REFUSED)
    # released there, and held there by an operator
    change(
        store,
        "UPDATE delivery SET reason = :reason WHERE queue_id = :id",
        reason=OPERATOR.sentence,
        id=queue_id,
    )
    assert part_of(store, queue_id).hold == OPERATOR
    assert store.holds.held_causes() == [OPERATOR]
    assert store.holds.release_held(REFUSED, limit=9).due == 0
    assert store.holds.release_held(OPERATOR, limit=9).due == 1


@pytest.mark.parametrize("is_coded", [True, False])
def test_what_was_put_off_for_a_provider_is_due_once(store: Store, is_coded: bool) -> None:
    cause = provider_down("main")
    hold = cause if is_coded else None
    queue_id = held(store, cause, state=D.DEFERRED, due_at_ms=NOW_MS + 30_000, hold=hold)
    assert part_of(store, queue_id).hold == hold
    with clock_at(store, NOW_MS + 9):
        assert store.holds.release_held(provider_down("other"), limit=9).due == 0
        assert store.holds.release_held(cause, limit=9).due == 1
        assert part_of(store, queue_id).due_at_ms == NOW_MS + 9
        assert store.holds.release_held(cause, limit=9).due == 0


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_the_migration_codes_the_sentences_of_a_queue_of_schema_0005(
    database: str, request: pytest.FixtureRequest, tmp_path: Any
) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    if database == "postgres":
        url = request.getfixturevalue("postgres_url")
    known = [cause for cause in CAUSES if cause.code is not HoldCode.RESTORED]  # came later
    states = [(cause, state) for cause in known for state in (D.HELD, D.DELETED)]
    states += [(provider_down("main"), D.DEFERRED), (OPERATOR, D.DEFERRED)]
    with migrate.transaction(Place.of(url), is_for_writing=True) as connection:
        config = Config()
        config.set_main_option("script_location", str(migrate.scripts()))
        config.attributes["connection"] = connection
        command.upgrade(config, "0005")
        for number, (cause, state) in enumerate(states):
            connection.execute(
                text(
                    "INSERT INTO delivery (queue_id, delivery_no, route, stream, state, due_at_ms,"
                    " changed_at_ms, client_key, attempts, doubts, reclaims, held_ms, reason)"
                    " VALUES (:id, 0, 'default', 'transactional', :state, 1, 1, '', 0, 0, 0, 0,"
                    " :reason)"
                ),
                {"id": f"Q{number:02}", "state": state.value, "reason": cause.sentence},
            )
        for key, reason in HOLDS.items():
            connection.execute(
                text(
                    "INSERT INTO hold (hold_id, scope, key, reason, remedy, since_ms, probe_at_ms)"
                    " VALUES (:key, 'provider', :key, :reason, '', 1, 2)"
                ),
                {"key": key, "reason": reason},
            )
    migrate.upgrade(url)
    store = open_store(url)
    with store.database.read() as tx:
        rows = tx.execute(
            text("SELECT queue_id, hold_code, hold_key, reason FROM delivery ORDER BY queue_id")
        ).all()
    expected = [
        (cause.code.value, cause.key) if (cause, state) != (OPERATOR, D.DEFERRED) else (None, None)
        for cause, state in states
    ]
    assert [(row.hold_code, row.hold_key) for row in rows] == expected
    assert [row.reason for row in rows] == [cause.sentence for cause, _ in states]
    assert store.holds.held_causes() == sorted(known)
    assert {one.key: (one.reason, one.cause) for one in store.holds.in_force()} == {
        key: (reason, cause_of(reason)) for key, reason in HOLDS.items()
    }
    store.close()


def test_a_hold_of_a_provider_keeps_its_cause_until_an_older_version_renews_it(
    store: Store,
) -> None:
    cause = HoldCause(HoldCode.REFUSED_ALIKE, "20 550 no")
    hold = Hold(
        scope="provider",
        key="main",
        reason=cause.sentence,
        remedy="",
        since_ms=1,
        probe_at_ms=2,
        cause=cause,
    )
    store.holds.put_hold(hold)
    assert [one.cause for one in store.holds.in_force()] == [cause]
    assert cause.words == "550 no"
    change(store, "UPDATE hold SET reason = :reason", reason="454 quota")
    assert [one.cause for one in store.holds.in_force()] == [HoldCause(HoldCode.OTHER, "454 quota")]
    store.holds.put_hold(replace(hold, reason=OPERATOR.sentence, cause=OPERATOR))
    assert [one.cause for one in store.holds.in_force()] == [OPERATOR]


def test_of_several_workers_one_is_chosen_for_a_probe_that_is_due(store: Store) -> None:
    now_ms = clock_ms()
    pause = Hold(
        scope=PAUSED, key="p", reason="r", remedy="", since_ms=now_ms - 9000, probe_at_ms=now_ms - 1
    )
    store.holds.put_hold(pause)
    later_ms = now_ms + 60_000
    chosen = [store.holds.renew_probe(PAUSED, "p", later_ms, if_due=True) for _ in range(3)]
    assert chosen == [True, False, False]
    assert store.holds.renew_probe(PAUSED, "p", later_ms)
    assert not store.holds.renew_probe(PAUSED, "other", later_ms)
    store.holds.drop_hold(PAUSED, "p")
    assert not store.holds.renew_probe(PAUSED, "p", later_ms)
