"""The sender of webhooks beside the web role: in a thread of its own, where it is needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from relaygw.alerting.watch import WatchThread
from relaygw.errors import StoreUnavailable
from relaygw.roles.process import RoleContext, in_loop
from relaygw.store.store import Store
from relaygw.webhooks.sender import Sender


@asynccontextmanager
async def webhooks_told(context: RoleContext, store: Store) -> AsyncIterator[None]:
    """Send to the receivers of webhooks within a with block."""
    settings = context.loaded.settings
    if not settings.webhooks and not await asyncio.to_thread(_has_left_any, store):
        yield
        return
    note = in_loop(partial(context.log.note, "webhook"))
    sender = Sender(settings=settings, store=store, incarnation=context.incarnation, note=note)
    thread = WatchThread(sender.run, name="webhooks")
    with_thread = await asyncio.to_thread(thread.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(with_thread.__exit__)


def _has_left_any(store: Store) -> bool:
    """Return whether receivers that were in the settings once may still be to be removed."""
    try:
        return bool(store.outbox.endpoints())
    except StoreUnavailable:
        return False
