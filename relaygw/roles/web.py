"""The web role: health, metrics, pages, API; beside it the sender of webhooks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial

from relaygw import service_file
from relaygw.alerting.history import history_kept
from relaygw.alerting.watch_thread import WatchThread
from relaygw.errors import StoreUnavailable
from relaygw.mail.words import span
from relaygw.observe.history import History
from relaygw.passwords import Uses
from relaygw.roles import hears_of_mail, open_store, wake_workers
from relaygw.roles.demand import IDLE_S, Attendance
from relaygw.roles.process import Heartbeat, RoleContext, in_loop, registered, stop_event
from relaygw.roles.uses import uses_kept, written
from relaygw.store.instances import STALE_AFTER_S
from relaygw.store.store import Store
from relaygw.volume import is_full
from relaygw.web.app import create_app
from relaygw.web.dashboard.monitoring import MetricsPage, ReadyCheck
from relaygw.web.gate.identity import Visits
from relaygw.web.indexing import Indexer, keep_findable, keep_indexed
from relaygw.web.server import serve_web
from relaygw.webhooks.sender import Sender


async def web(context: RoleContext) -> int:
    """Answer HTTP until told to end; return the exit code."""
    # before TERM has a handler
    store = open_store(context.loaded, is_checked=True, connections=context.connections)
    stop = stop_event(context)
    settings = context.loaded.settings
    with registered(context, "web", store, later=True):
        heartbeat = Heartbeat(context, "web", store)
        beat = asyncio.create_task(heartbeat.beat())
        metrics = MetricsPage(store, settings, state_dir=context.loaded.state_dir)
        uses, history = Uses(), History()
        indexer = Indexer(store, context.readings)
        visits, attendance = Visits(history), Attendance()
        beside = asyncio.gather(
            keep_indexed(indexer, stop),
            keep_findable(store, settings.web.link_header, stop, told=attendance.note),
            _end_unwanted(context, attendance, stop),
        )
        app = create_app(
            store,
            settings,
            indexer=indexer,
            is_ready=_readiness(context, heartbeat),
            metrics=metrics,
            stop=stop,
            wake_workers=lambda: wake_workers(context.loaded),
            state_dir=context.loaded.state_dir,
            uses=uses,
            visits=visits,
            began_at_ms=context.began_at_ms,
            form_key=context.form_key,
            has_worker="delivery" in context.roles,
        )
        pages, *others = context.sockets
        events = others.pop() if settings.events.bind is not None else None
        async with (
            uses_kept(uses, store),
            history_kept(history, store),
            written(visits, store.visitors.note_uses),
            webhooks_told(context, store),
            _feedback_kept(context, store, events, stop),
        ):
            await asyncio.gather(
                serve_web(app, pages, stop=stop, visited=attendance.note),
                *(serve_web(metrics.app(), other, stop=stop) for other in others),
            )
        await beside
        beat.cancel()
    store.close()
    return 0


def _readiness(context: RoleContext, heartbeat: Heartbeat) -> ReadyCheck:
    mark = service_file.draining_mark(context.loaded.state_dir)

    async def is_ready() -> str | None:
        if mark.exists():
            return "this instance is being drained"
        if is_full(context.loaded.state_dir, context.loaded.settings.queue.min_free):
            return "the volume is full, and no mail is accepted"
        return "the store accepts nothing" if heartbeat.age_s > STALE_AFTER_S else None

    return is_ready


async def _end_unwanted(context: RoleContext, attendance: Attendance, stop: asyncio.Event) -> None:
    """Set `stop` when nobody has wanted this role for long, where it runs on demand."""
    if context.demand is not None and await attendance.end(stop):
        idle = span(int(IDLE_S * 1000))
        context.log.note("master", f"web ends: nobody has asked for {idle}; whoever does starts it")
        stop.set()


def _feedback_kept(
    context: RoleContext, store: Store, listening: socket.socket | None, stop: asyncio.Event
) -> AbstractAsyncContextManager[None]:
    """Take and read what is told of sent mail, where anybody tells: see `roles.feedback`."""
    if not hears_of_mail(context.loaded.settings):
        return nullcontext()
    from relaygw.roles.feedback import feedback_kept  # with cryptography: 4 MB

    return feedback_kept(context, store, listening, stop)


# --- webhooks ---------------------------------------------------------------------------


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
