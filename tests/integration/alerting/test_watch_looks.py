"""What rests on a look at the whole queue is told, and is over, by what a new look shows."""

from __future__ import annotations

import time
from pathlib import Path

from relaygw.mail.state import DeliveryState
from relaygw.store.audit import AuditEntry
from relaygw.store.store import Store
from tests.builders import accepted
from tests.integration.alerting.watch_rig import wait_until, watching


def delete(store: Store, queue_id: str) -> None:
    deed = AuditEntry(at_ms=1, actor="x", action="x", target="x", affected=1, detail="")
    waiting = frozenset({DeliveryState.INCOMING})
    store.queue.change_state([queue_id], from_states=waiting, to=DeliveryState.DELETED, entry=deed)


def is_seen_empty(store: Store) -> bool:
    points = store.watch.history(0)
    return any((one.series, one.label, one.amount) == ("queue", "deferred", 0) for one in points)


async def test_mail_that_goes_on_after_a_look_at_the_queue_is_no_incident(
    store: Store, tmp_path: Path
) -> None:
    homeless = accepted(at_ms=time.time_ns() // 1_000_000, route="before")
    store.intake.accept_batch([homeless])

    def after_the_look() -> None:
        delete(store, homeless.queue_id)

    notes: list[str] = []
    async with watching(store, tmp_path, incarnation="a", notes=notes) as watch:
        watch.queue_look_s = 3600.0
        watch.clock_step = after_the_look
        await wait_until(lambda: bool(store.watch.incidents(0)) or is_seen_empty(store))
    assert store.watch.incidents(0) == []
    assert notes == []


async def test_an_incident_whose_cause_is_back_after_a_look_at_the_queue_goes_on(
    store: Store, tmp_path: Path
) -> None:
    now_ms = time.time_ns() // 1_000_000
    before, later = (accepted(at_ms=now_ms, route="before") for _ in range(2))
    store.intake.accept_batch([before])
    looks = 0

    def between_looks() -> None:
        nonlocal looks
        if looks == 0 and store.watch.incidents(0):
            delete(store, before.queue_id)
            looks = 1
        elif looks == 1 and is_seen_empty(store):
            store.intake.accept_batch([later])
            looks = 2
        elif looks >= 2:
            looks += 1

    async with watching(store, tmp_path, incarnation="a") as watch:
        watch.queue_look_s = 0.3  # longer than what is to last
        watch.clock_step = between_looks
        await wait_until(lambda: looks > 50)
    (incident,) = store.watch.incidents(0)
    assert incident.recovered_at_ms is None
