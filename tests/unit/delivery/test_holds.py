"""What holds and outages mean for the gates of a worker, and for the mail that waits for an end."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relaygw.delivery import holds as holds_module
from relaygw.delivery.gate import Gate
from relaygw.delivery.holds import Holds, _obey_provider, obey_outages
from relaygw.errors import StoreUnavailable
from relaygw.mail.clock import clock_ms
from relaygw.mail.hold import HoldCause, provider_down, sender_refused
from relaygw.mail.outcome import Scope
from relaygw.mail.standing_hold import HoldScope
from relaygw.mail.state import DeliveryState
from relaygw.observe.observer import DeliveryObserver
from relaygw.policy.recipients import Screen
from relaygw.policy.retry import unsent
from relaygw.settings.provider import Provider
from relaygw.store.holds import PAUSED, UNREACHABLE, Hold, Released, ended_entry
from relaygw.store.store import Store
from tests.altered_store import AlteredStore
from tests.builders import NOW_MS, accepted, standing_hold
from tests.logs import text_log
from tests.queues import queue_with_worker
from tests.tables import each_of
from tests.unit.delivery.worker_context import worker_context

HOUR_MS = 3_600_000


class Away(AlteredStore):
    """A store that releases nothing while it is away."""

    is_away = False

    def release_held(
        self, cause: HoldCause, *, limit: int, probing: HoldCause | None = None, **more: Any
    ) -> Released:
        if self.is_away:
            raise StoreUnavailable("away")
        return super().release_held(cause, limit=limit, probing=probing, **more)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Away]:
    store = queue_with_worker(tmp_path, Away)
    yield store
    store.close()


class Desk:
    """The holds of a worker on a store, the gate of its provider, and what it said."""

    def __init__(self, store: Store, *, is_fresh: bool = False) -> None:
        self.store, self.log = store, io.StringIO()
        context = worker_context(store, observer=DeliveryObserver(text_log(self.log)))
        self.holds = Holds(context, {}, Screen(context.settings))
        if not is_fresh:
            self.holds.is_fresh = False
        self.gate = gate()

    async def obey(self) -> None:
        await self.holds.obey(self.store.holds.all_in_force(), [self.gate])


def gate(**more: Any) -> Gate:
    return Gate(provider="p", settings=Provider(host="smtp.example.com"), **more)


def hold(key: str = "p", *, scope: str = Scope.PROVIDER, probe_in_s: float | None = 3600.0) -> Hold:
    probe_at_ms = None if probe_in_s is None else clock_ms() + int(probe_in_s * 1000)
    at_ms = clock_ms()
    return Hold(
        scope=scope, key=key, reason="no", remedy="", since_ms=at_ms, probe_at_ms=probe_at_ms
    )


def put_aside(store: Store, count: int, state: DeliveryState, cause: HoldCause) -> None:
    """Let so many deliveries wait for an hour, or for the end of a hold."""
    store.intake.accept_batch([accepted() for _ in range(count)])
    claimed = store.leases.claim("default", limit=count, incarnation="w", now_ms=NOW_MS)
    now_ms = clock_ms()
    updates = [unsent(one, state, now_ms + HOUR_MS, cause) for one in claimed]
    assert not store.leases.record_batch(updates, incarnation="w", now_ms=now_ms).lost


def due(store: Store) -> int:
    return len(store.leases.claim("default", limit=99, incarnation="w", now_ms=clock_ms() + 10))


async def test_all_that_was_put_off_for_a_provider_is_due_when_it_is_back(
    store: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds_module, "_PAGE", 2)
    put_aside(store, 5, DeliveryState.DEFERRED, provider_down("p"))
    desk = Desk(store)
    store.is_away = True
    assert await desk.holds.release_put_off("p") == 0
    assert "mail waiting for p is not retried early: away" in desk.log.getvalue()
    store.is_away = False
    assert await desk.holds.release_put_off("other") == 0
    assert await desk.holds.release_put_off("p") == 5
    assert due(store) == 5


async def test_what_waits_for_a_refused_sender_is_due_when_its_mail_was_taken(store: Away) -> None:
    store.holds.put_hold(hold("p shop.test", scope=Scope.SENDER_DOMAIN))
    put_aside(store, 2, DeliveryState.HELD, sender_refused("shop.test", ["p"]))
    desk = Desk(store)
    await desk.obey()
    assert due(store) == 0
    await desk.holds.drop_sender(desk.gate, "other.test")
    assert store.holds.in_force()
    await desk.holds.drop_sender(desk.gate, "shop.test")
    assert not store.holds.in_force()
    assert due(store) == 2


async def test_one_mail_of_each_refused_sender_tries_when_its_time_has_come(store: Away) -> None:
    for domain, probe_in_s in (("early.test", 900.0), ("none.test", -1.0), ("shop.test", -1.0)):
        of_domain = hold(f"p {domain}", scope=Scope.SENDER_DOMAIN, probe_in_s=probe_in_s)
        store.holds.put_hold(of_domain)
    put_aside(store, 2, DeliveryState.HELD, sender_refused("shop.test", ["p"]))
    put_aside(store, 1, DeliveryState.HELD, sender_refused("early.test", ["p"]))
    desk = Desk(store)
    await desk.obey()
    assert due(store) == 1
    now_s = time.monotonic()
    waits_s = {domain: at_s - now_s for domain, at_s in desk.gate.held_senders.items()}
    assert waits_s["early.test"] == pytest.approx(900, abs=60)
    assert waits_s["none.test"] < 0, "the next that is held for it tries"
    assert waits_s["shop.test"] == pytest.approx(300, abs=60), "its outcome is waited for"


async def test_held_providers_are_tried_at_once_after_a_start_and_when_asked(store: Away) -> None:
    desk = Desk(store, is_fresh=True)
    for _ in range(2):
        store.holds.put_hold(hold())
        await desk.obey()
        assert desk.gate.probe_at_s is not None
        assert desk.gate.probe_at_s <= time.monotonic()
        store.holds.put_hold(hold())
        await desk.obey()
        assert desk.gate.probe_at_s > time.monotonic() + 1800, "once"
        desk.holds.look_anew()


@pytest.mark.parametrize("has_hold", [False, True], ids=["no hold", "a hold"])
async def test_mail_held_for_a_hold_that_nobody_recorded_is_released(
    store: Away, has_hold: bool
) -> None:
    """As when the queue was away, and who had the hold in mind has died since."""
    put_aside(store, 2, DeliveryState.HELD, sender_refused("shop.test", ["p"]))
    if has_hold:
        store.holds.put_hold(hold("p shop.test", scope=Scope.SENDER_DOMAIN))
    desk = Desk(store)
    await desk.obey()
    assert due(store) == 0
    desk.holds.looks_closer = True
    await desk.obey()
    assert due(store) == (0 if has_hold else 2)


@pytest.mark.parametrize("ahead_ms", [3_600_000, 0], ids=["to come", "now"])
async def test_a_hold_set_at_a_time_still_to_come_is_tried_at_once(
    store: Away, ahead_ms: int
) -> None:
    """The clock was set back since, and maybe nobody has seen that."""
    store.holds.put_hold(replace(hold(), since_ms=clock_ms() + ahead_ms))
    desk = Desk(store)
    await desk.obey()
    assert desk.gate.probe_at_s is not None
    assert desk.gate.probe_at_s > time.monotonic() + 1800
    desk.holds.looks_closer = True
    await desk.obey()
    assert (desk.gate.probe_at_s <= time.monotonic()) == bool(ahead_ms)


@pytest.mark.parametrize("probe_in_s", [3600.0, None], ids=["said", "operator"])
async def test_a_probe_ends_any_hold_but_an_operator_s(
    store: Away, probe_in_s: float | None
) -> None:
    store.holds.put_hold(hold(probe_in_s=probe_in_s))
    desk = Desk(store)
    await desk.obey()
    assert desk.gate.is_held
    await desk.holds.drop(desk.gate)
    is_left = probe_in_s is None
    assert desk.gate.is_held == is_left
    assert bool(store.holds.in_force()) == is_left
    assert ("its hold has ended" in desk.log.getvalue()) != is_left


async def test_a_connection_that_was_made_ends_an_outage(store: Away) -> None:
    store.holds.put_hold(hold(scope=UNREACHABLE))
    desk = Desk(store)
    obey_outages(store.holds.in_force(), [desk.gate])
    assert (desk.gate.is_outage_known, desk.gate.is_reached) == (True, False)
    await desk.holds._note_success(desk.gate)
    assert (desk.gate.is_outage_known, desk.gate.is_reached) == (False, True)
    assert not store.holds.in_force()
    assert "provider p is back" in desk.log.getvalue()


@each_of(
    "before, in_force, after",
    [
        ({"is_held": True, "probe_at_s": 1.0}, [], (False, True)),
        ({}, [hold("other")], (False, True)),
        ({}, [hold(scope=UNREACHABLE)], (False, True)),
        ({}, [hold()], (True, True)),
        ({}, [hold(scope=Scope.CREDENTIAL)], (True, False)),  # a key is tried without mail
        ({}, [hold(), hold(scope=Scope.CREDENTIAL)], (True, False)),
        # what set it here knows better
        ({"is_held": True, "is_probed_by_mail": False}, [hold()], (True, False)),
        ({"is_held": True}, [hold(scope=Scope.CREDENTIAL)], (True, True)),
    ],
)
def test_a_hold_says_whether_mail_may_probe(
    before: Mapping[str, Any], in_force: Sequence[Hold], after: tuple[bool, bool]
) -> None:
    made = gate(**before)
    _obey_provider(made, in_force)
    assert (made.is_held, made.is_probed_by_mail) == after
    assert (made.probe_at_s is not None) == made.is_held


def test_of_several_holds_the_last_probe_counts_and_an_operator_s_most() -> None:
    made = gate()
    _obey_provider(made, [hold(probe_in_s=60), hold(probe_in_s=600), hold(probe_in_s=300)])
    assert made.probe_at_s == pytest.approx(time.monotonic() + 600, abs=60)
    _obey_provider(made, [hold(probe_in_s=60), hold(probe_in_s=None)])
    assert (made.is_held, made.probe_at_s) == (True, None)


def test_an_outage_that_others_saw_ends_the_wait_and_no_other_wait_ends() -> None:
    """Its own ladder goes on where nobody told of an outage."""
    now_s = time.monotonic()
    alone, known, told = gate(), gate(is_outage_known=True), gate()
    for one in (alone, known):
        one.note_failure(now_s)
        one.blocked_until_s = now_s + 60
    obey_outages([], [alone, known])
    assert alone.blocked_until_s == now_s + 60
    assert known.blocked_until_s < now_s + 60, "it ended: it is probed at once"
    obey_outages([hold(scope=UNREACHABLE), hold("other")], [told])
    assert told.is_down(time.monotonic())
    assert told.is_outage_known


async def test_one_of_several_workers_probes_a_pause(store: Store) -> None:
    desks = [Desk(store) for _ in range(3)]
    store.holds.put_hold(hold(scope=PAUSED, probe_in_s=-1.0))
    for desk in desks:
        await desk.obey()
        assert desk.gate.is_paused and not desk.gate.is_open(time.monotonic())
        await desk.holds.choose_prober(desk.gate)
    assert [desk.gate.is_open(time.monotonic()) for desk in desks] == [True, False, False]
    for desk in desks:
        await desk.obey()
    assert [desk.gate.is_open(time.monotonic()) for desk in desks] == [True, False, False]
    store.holds.drop_hold(PAUSED, "p")
    for desk in desks:
        await desk.obey()
    assert all(desk.gate.is_open(time.monotonic()) for desk in desks)
    assert not any(desk.gate.is_paused for desk in desks)


async def test_mail_of_a_standing_hold_that_ended_elsewhere_is_let_go_at_once(store: Away) -> None:
    """Also what another worker holds for it a moment later."""
    desk = Desk(store)
    hold = standing_hold(HoldScope.SUBJECT, "x")
    entry = ended_entry(hold, "ann", 1, "")
    store.holds.put_standing(hold, entry=entry)
    await desk.obey()
    store.intake.accept_batch([accepted(holds=(hold.cause,))])
    await desk.obey()
    assert store.holds.held_causes() == [hold.cause]
    store.holds.drop_hold(hold.scope.value, hold.value, entry=entry)
    await desk.obey()
    assert store.holds.held_causes() == []
    store.intake.accept_batch([accepted(holds=(hold.cause,))])
    await desk.obey()
    assert store.holds.held_causes() == []
