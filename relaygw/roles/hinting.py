"""Hints between the gateways on a shared queue: that there is something new."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from relaygw.roles.context import RoleContext
from relaygw.roles.opening import queue_place


def notifier(context: RoleContext) -> Callable[[], None]:
    """Return what tells other instances that there is something new."""
    place = queue_place(context.loaded)
    if not place.is_postgres:
        return lambda: None
    from relaygw.store.notify import NotifySender

    return NotifySender(place).send


@contextlib.contextmanager
def listening(context: RoleContext, wake: Callable[[], None]) -> Iterator[None]:
    """Call `wake` in the event loop when another instance has something new."""
    place = queue_place(context.loaded)
    if not place.is_postgres:
        yield
        return
    from relaygw.store.notify import NotifyListener

    loop = asyncio.get_running_loop()

    def wake_loop() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(wake)

    listener = NotifyListener(place, wake_loop)
    try:
        yield
    finally:
        listener.close()
