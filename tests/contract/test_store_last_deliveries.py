"""The last two deliveries of a message end at the same moment, with two workers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from sqlalchemy import select

from relaygw.mail.envelope import DeliveryUpdate
from relaygw.store.queue_tables import message
from tests.builders import NOW_MS, accepted, instance, part_on, taken, update_of
from tests.contract.conftest import open_store

ROUNDS = 60


def delivered(queue_id: str, delivery_no: int) -> DeliveryUpdate:
    one = taken(delivery_no, reply="250 ok", provider="p")
    return update_of(queue_id, delivery_no=delivery_no, provider="p", recipients=(one,))


def test_a_message_is_finished_when_its_last_two_deliveries_end_at_once(url: str) -> None:
    routes = ("a", "b")
    stores = [open_store(url) for _ in routes]
    for store, route in zip(stores, routes, strict=True):
        store.instances.register(instance(route))
    parts = tuple(part_on(route, f"{route}@cust.test") for route in routes)
    messages = [replace(accepted(at_ms=NOW_MS + n), deliveries=parts) for n in range(ROUNDS)]
    stores[0].intake.accept_batch(messages)
    for store, route in zip(stores, routes, strict=True):
        store.leases.claim(route, limit=ROUNDS, incarnation=route, now_ms=NOW_MS + ROUNDS)
    together = threading.Barrier(len(routes))

    def end_all(number: int) -> None:
        for one in messages:
            together.wait()
            stores[number].leases.record_batch(
                [delivered(one.queue_id, number)], incarnation=routes[number], now_ms=NOW_MS
            )

    with ThreadPoolExecutor(len(routes)) as threads:
        list(threads.map(end_all, range(len(routes))))
    with stores[0].database.read() as connection:
        ends = connection.execute(select(message.c.finished_at_ms)).scalars().all()
    for store in stores:
        store.close()
    assert len(ends) == ROUNDS
    assert None not in ends
