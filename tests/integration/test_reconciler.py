"""Mail that settings of yesterday left behind, looked at by the rules of now."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from relaygw.delivery.waits import Waits
from relaygw.mail.envelope import AcceptedMessage, DeliveryUpdate, NewDelivery, NewRecipient
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.settings.routes import Route, Stream
from relaygw.store.instances import Instance
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.store import Store, open_store
from tests.builders import NOW_MS, accepted, instance
from tests.fakes.scripted_provider import ScriptedProvider
from tests.integration import delivery_rig
from tests.integration.delivery_rig import Rig
from tests.queues import make_queue

D = DeliveryState
GONE = "route default, which is not in the configuration"
running = partial(delivery_rig.running, waits=Waits(routes_s=0.05))


def worker(incarnation: str, *, fingerprint: str = "f") -> Instance:
    return instance(incarnation, fingerprint=fingerprint)


def queue(directory: Path, *messages: AcceptedMessage) -> Store:
    """Return a queue that has messages before the worker of now starts."""
    url = f"sqlite:///{directory}/queue.db"
    make_queue(url)
    store = open_store(url)
    store.intake.accept_batch(messages)
    return store


def leave(store: Store, message: AcceptedMessage, **update: Any) -> None:
    """Let a worker of yesterday leave a message as `update` says."""
    store.instances.register(worker("before"))
    (claimed,) = store.leases.claim(
        message.deliveries[0].route, limit=1, incarnation="before", now_ms=NOW_MS
    )
    values: dict[str, Any] = {
        "queue_id": claimed.queue_id,
        "delivery_no": claimed.delivery_no,
        "state": D.DEFERRED,
        "due_at_ms": NOW_MS,
        "provider": None,
        "reason": None,
        "recipients": (),
    }
    store.leases.record_batch(
        [DeliveryUpdate(**values | update)], incarnation="before", now_ms=NOW_MS
    )
    store.instances.bury("before")


def routes_of(entry: QueueEntry) -> list[tuple[str, str]]:
    return [(part.route, part.state.value) for part in entry.deliveries]


MAIN = [Route(name="main", providers=("p",))]


async def test_mail_of_a_renamed_route_goes_by_the_rules_of_now(tmp_path: Path) -> None:
    waits = accepted()
    queue(tmp_path, waits).close()
    async with (
        ScriptedProvider() as p,
        running(tmp_path, {"p": p.settings()}, routes=MAIN) as rig,
    ):
        entry = await rig.wait_for(waits, D.FINISHED)
        late = accepted()  # by a front that still ends its sessions with the settings before
        rig.accept(late)
        await rig.wait_for(late, D.FINISHED)
        (deed,) = [
            one for one in rig.store.audit.entries(limit=9) if waits.queue_id in one.target.split()
        ]
    assert routes_of(entry) == [("main", "finished")]
    assert len(p.messages) == 2
    assert f"1 delivery of {GONE} any more, goes by route main now" in rig.log.getvalue()
    assert (deed.actor, deed.action, deed.detail) == ("relaygw", "queue.reroute", "from='default'")


async def test_what_went_by_one_route_may_part(tmp_path: Path) -> None:
    waits = accepted("a@one.test", "b@two.test", "c@one.test")
    queue(tmp_path, waits).close()
    routes = [
        Route(name="one", recipient=("@one.test",), providers=("p",)),
        Route(name="two", stream=Stream.PROMOTIONAL, providers=("p",)),
    ]
    async with (
        ScriptedProvider() as p,
        running(tmp_path, {"p": p.settings()}, routes=routes) as rig,
    ):
        entry = await rig.wait_for(waits, D.FINISHED, D.FINISHED)
    assert routes_of(entry) == [("one", "finished"), ("two", "finished")]
    assert [part.stream for part in entry.deliveries] == ["transactional", "promotional"]
    assert sorted(message.recipients for message in p.messages) == [
        ("a@one.test", "c@one.test"),
        ("b@two.test",),
    ]
    assert {one.state for one in entry.recipients} == {RecipientState.DELIVERED}


async def test_two_deliveries_that_fall_onto_one_route_stay_two(tmp_path: Path) -> None:
    parts = tuple(
        NewDelivery(
            route=route,
            stream="transactional",
            recipients=(NewRecipient(address=f"{route}@cust.test"),),
        )
        for route in ("default", "main")
    )
    waits = accepted(deliveries=parts)
    queue(tmp_path, waits).close()
    async with (
        ScriptedProvider() as p,
        running(tmp_path, {"p": p.settings()}, routes=MAIN) as rig,
    ):
        entry = await rig.wait_for(waits, D.FINISHED, D.FINISHED)
    assert routes_of(entry) == [("main", "finished"), ("main", "finished")]
    assert len(p.messages) == 2


async def test_mail_moved_to_a_provider_that_is_gone_goes_by_the_rules_of_now(
    tmp_path: Path,
) -> None:
    waits = accepted(route="provider:before:promotional")
    queue(tmp_path, waits).close()
    async with (
        ScriptedProvider() as p,
        running(tmp_path, {"p": p.settings()}, routes=MAIN) as rig,
    ):
        entry = await rig.wait_for(waits, D.FINISHED)
    assert routes_of(entry) == [("main", "finished")]


async def test_the_header_of_the_mail_decides_as_when_it_came(tmp_path: Path) -> None:
    waits = accepted(content=b"X-Campaign: spring\r\n\r\nhello\r\n")
    queue(tmp_path, waits).close()
    routes = [Route(name="bulk", header={"X-Campaign": "*"}, providers=("p",)), *MAIN]
    async with (
        ScriptedProvider() as p,
        running(tmp_path, {"p": p.settings()}, routes=routes) as rig,
    ):
        entry = await rig.wait_for(waits, D.FINISHED)
    assert routes_of(entry) == [("bulk", "finished")]


async def test_what_is_in_doubt_stays_and_the_log_says_so(tmp_path: Path) -> None:
    doubtful = accepted()
    store = queue(tmp_path, doubtful)
    leave(store, doubtful, provider="p", doubted=True)
    store.close()
    async with (
        ScriptedProvider() as p,
        running(tmp_path, {"p": p.settings()}, routes=MAIN) as rig,
    ):
        await rig.wait_until(lambda: "no worker sends" in rig.log.getvalue())
        assert routes_of(rig.entry(doubtful)) == [("default", "deferred")]
    assert not p.messages
    log = rig.log.getvalue()
    assert f"warning: no worker sends 1 delivery of {GONE}: " in log
    assert "relaygw queue move --route default --to PROVIDER" in log


async def test_a_rolling_change_of_settings_does_not_fight(tmp_path: Path) -> None:
    waits = accepted()
    store = queue(tmp_path, waits)
    store.instances.register(worker("other", fingerprint="of the settings before"))
    async with ScriptedProvider() as p, running(tmp_path, {"p": p.settings()}, routes=MAIN) as rig:
        said = "is not changed while other processes run other settings: "
        await rig.wait_until(lambda: f"{said}delivery 1 on gw" in rig.log.getvalue())
        assert routes_of(rig.entry(waits)) == [("default", "incoming")]
        store.instances.heartbeat("other", state="draining")  # it takes nothing new any more
        await rig.wait_for(waits, D.FINISHED)
        # a worker that is about to stop does not undo what the front of a reload has decided
        store.instances.register(replace(worker("new", fingerprint="newer"), role="front"))
        late = accepted()
        rig.accept(late)
        await rig.wait_until(lambda: f"{said}front 1 on gw" in rig.log.getvalue())
        assert routes_of(rig.entry(late)) == [("default", "incoming")]
        store.instances.bury("new")
        await rig.wait_for(late, D.FINISHED)
    store.close()


async def held_for_the_mode(tmp_path: Path, mode: str, **more: Any) -> tuple[Rig, QueueEntry, int]:
    """Return how mail stands that staging held, once a worker of another mode has started."""
    waits, sign = accepted(), accepted("qa@shop.test")
    store = queue(tmp_path, waits)
    leave(store, waits, state=D.HELD, reason="mode")
    store.intake.accept_batch([sign])
    store.close()
    async with (
        ScriptedProvider() as p,
        running(tmp_path, {"p": p.settings()}, mode=mode, **more) as rig,
    ):
        await rig.wait_for(sign, D.FINISHED)
        if mode == "production":
            await rig.wait_for(waits, D.FINISHED)
        return (
            rig,
            rig.entry(waits),
            rig.store.queue.record_of(waits.queue_id).deliveries[0].held_at_ms or 0,
        )


async def test_mail_held_for_a_mistaken_mode_goes_when_the_mode_is_back(tmp_path: Path) -> None:
    rig, entry, _ = await held_for_the_mode(tmp_path, "production")
    assert routes_of(entry) == [("default", "finished")]
    assert (
        "1 delivery that was held because of the mode: now permitted and due" in rig.log.getvalue()
    )


async def test_what_a_worker_of_another_mode_holds_to_its_end_goes_then(tmp_path: Path) -> None:
    waits, late = accepted(), accepted(route="main")
    store = queue(tmp_path, waits)
    store.instances.register(worker("other", fingerprint="of the settings before"))
    async with ScriptedProvider() as p, running(tmp_path, {"p": p.settings()}, routes=MAIN) as rig:
        await rig.wait_until(lambda: "is not changed while other" in rig.log.getvalue())
        # this worker has looked; the other one still ends what it has in hand
        rig.store.intake.accept_batch([late], hold=HoldCause(HoldCode.MODE))
        store.instances.bury("other")
        await rig.wait_for(late, D.FINISHED)
    store.close()


async def test_mail_that_the_mode_of_now_does_not_permit_stays_as_it_is(tmp_path: Path) -> None:
    _, entry, held_at_ms = await held_for_the_mode(
        tmp_path, "staging", recipients={"allow": ["qa@shop.test"]}
    )
    assert routes_of(entry) == [("default", "held")]
    assert held_at_ms == NOW_MS, "nobody touched it"


async def test_what_an_operator_holds_beside_it_stays_held(tmp_path: Path) -> None:
    by_mode, by_hand = accepted(), accepted()
    store = queue(tmp_path, by_hand)
    leave(store, by_hand, state=D.HELD, reason="operator: mode of work")
    store.intake.accept_batch([by_mode])
    leave(store, by_mode, state=D.HELD, reason="mode")
    store.close()
    async with ScriptedProvider() as p, running(tmp_path, {"p": p.settings()}) as rig:
        await rig.wait_for(by_mode, D.FINISHED)
        assert routes_of(rig.entry(by_hand)) == [("default", "held")]
