"""A flush by any local user: what waits is due now; whatever only an operator may do is left alone.

In batches, each with a rest as long as it took: it is done in a thread of the front.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from relaygw.mail.clock import clock_ms
from relaygw.operations.queue_actions import (
    RETRY,
    Order,
    change_queued,
    found_batches,
    routes_taken,
)
from relaygw.settings.model import Settings
from relaygw.store.audit import AuditEntry
from relaygw.store.selection import Selection
from relaygw.store.store import Store


def flush(
    store: Store, settings: Settings, wake_workers: Callable[[], None], actor: str, queue_id: str
) -> int:
    """Make all deferred messages due, or one; return how many. Raises StoreUnavailable.

    One line of the audit trail has their number, however many there are: any user may do this.
    """
    ids = (queue_id,) if queue_id else ()
    selection = Selection(queue_ids=ids, states=RETRY.from_states)
    order = Order(actor=actor, is_audited=False, routes=routes_taken(store, settings))
    changed = 0
    try:
        for batch in found_batches(store, selection):
            begun_s = time.thread_time()
            changed += len(change_queued(store, RETRY, batch, order, now_ms=clock_ms()).changed)
            wake_workers()
            time.sleep(time.thread_time() - begun_s)
    finally:
        if changed:
            store.audit.add(
                AuditEntry(
                    at_ms=clock_ms(),
                    actor=actor,
                    action=f"queue.{RETRY.name}",
                    target=queue_id,
                    affected=changed,
                    detail="by a local user",
                )
            )
    return changed
