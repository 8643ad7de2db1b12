"""The delivery worker: sends mail, keeps the queue in order, watches."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path

from relaygw.alerting.history import history_kept
from relaygw.alerting.open_channels import open_notifier
from relaygw.alerting.watch import Watch
from relaygw.alerting.watch_thread import WatchThread
from relaygw.delivery.janitor import Janitor
from relaygw.delivery.leases import LeaseLost
from relaygw.delivery.notices import Notices
from relaygw.delivery.worker import Worker
from relaygw.errors import StoreUnavailable
from relaygw.inbound.intake import Intake
from relaygw.inbound.local_mail import NoticeComposer
from relaygw.observe.counters import DeliveryMetrics
from relaygw.observe.history import History
from relaygw.observe.metrics import open_metrics
from relaygw.observe.observer import DeliveryObserver
from relaygw.roles import open_store, queue_place
from relaygw.roles.process import RoleContext, first_of, in_loop, listening, registered, stop_event
from relaygw.settings.model import Settings
from relaygw.store import hints, instances, migrate
from relaygw.store.instances import Begun
from relaygw.store.store import Store

_REACH_EACH_S = 2.0
EXIT_LEASE_LOST = 3
"""The exit code of a delivery worker that was taken over: start a fresh one."""


async def delivery(context: RoleContext) -> int:
    """Send mail until told to end; return the exit code.

    While PostgreSQL cannot be reached it waits, and its watch tells.
    """
    store = open_store(  # before TERM has a handler
        context.loaded,
        is_checked=context.loaded.settings.queue.is_postgres,
        connections=context.connections,
    )
    stop = stop_event(context)
    workers: list[Worker] = []  # none yet
    with _watching(context, store, workers):
        await _reached(context, stop)
        exit_code = 0 if stop.is_set() else await _send(context, store, stop, workers)
    store.close()
    return exit_code


async def _reached(context: RoleContext, stop: asyncio.Event) -> None:
    """Return once a queue in PostgreSQL is there, or `stop` is set; raises SchemaMismatch."""
    place = queue_place(context.loaded)
    while place.is_postgres and not stop.is_set():
        try:
            return await asyncio.to_thread(migrate.check_schema, place)
        except StoreUnavailable as error:
            context.log.note("qmgr", f"warning: the worker waits: {error}")
        await first_of(stop.wait(), within_s=_REACH_EACH_S)


async def _send(
    context: RoleContext, store: Store, stop: asyncio.Event, workers: list[Worker]
) -> int:
    """Send mail until told to end, by a worker that is added to `workers`; return the exit code."""
    log = context.log
    hint_dir = hints.hint_directory(context.loaded.state_dir)
    hint_socket = hints.open_hint_socket(hint_dir, context.incarnation)
    exit_code = 0
    try:
        with registered(context, "delivery", store) as lifeline:
            history = _history_of(context.loaded.settings)
            counted = context.loaded.settings.providers
            file = open_metrics(context.metrics, log)
            metrics = DeliveryMetrics(file, counted) if file is not None else None
            observer = DeliveryObserver(log, history, metrics)
            worker = Worker(
                context.loaded.settings,
                store,
                observer,
                incarnation=context.incarnation,
                in_flight=lifeline,
                hints=hint_socket,
            )
            workers.append(worker)
            with listening(context, worker.wake):
                async with history_kept(history, store), _tended(context, store, observer):
                    await worker.run(stop, context.begins_nothing)
    except LeaseLost as lost:
        log.note("qmgr", f"warning: {lost}; a new worker replaces it")
        exit_code = EXIT_LEASE_LOST
    finally:
        if hint_socket is not None:
            hint_socket.close()
            (hint_dir / context.incarnation).unlink(missing_ok=True)
    return exit_code


@contextlib.asynccontextmanager
async def _tended(
    context: RoleContext, store: Store, observer: DeliveryObserver
) -> AsyncIterator[None]:
    """Keep the queue in order and tell senders, for the length of a with block."""
    settings, state_dir = context.loaded.settings, context.loaded.state_dir
    wake_workers = hints.HintSender(hints.hint_directory(state_dir)).send
    janitor = Janitor(
        settings,
        store,
        context.log,
        incarnation=context.incarnation,
        bury_dead_of_this_host=lambda: bury_dead(context.instances_dir, store),
        wake_workers=wake_workers,
        has_lock_file=has_lock_file(context.instances_dir, settings),
        want_web=context.demand.want if context.demand is not None else None,
    )
    composer = NoticeComposer(Intake(settings, state_dir=state_dir))
    notices = Notices(
        settings,
        store,
        observer,
        composer=composer,
        wake_workers=wake_workers,
        readings=context.readings,
    )
    running = [janitor.run(), notices.run()]
    if settings.digest.is_on:
        running.append(_digests(context, store, wake_workers))
    tasks = [asyncio.create_task(coroutine) for coroutine in running]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


def _digests(
    context: RoleContext, store: Store, wake_workers: Callable[[], None]
) -> Coroutine[None, None, None]:
    from relaygw.alerting.digest_sender import DigestSender  # costs those who want it

    settings, state_dir = context.loaded.settings, context.loaded.state_dir
    return DigestSender(
        settings=settings,
        store=store,
        incarnation=context.incarnation,
        composer=NoticeComposer(Intake(settings, state_dir=state_dir)),  # in another thread
        log=context.log,
        wake_workers=wake_workers,
    ).run()


def _history_of(settings: Settings) -> History:
    """Return the counts; senders are counted where providers report what becomes of their mail."""
    are_judged = any(provider.events for provider in settings.providers.values())
    return History(counts_senders=are_judged or settings.bounces.inbound is not None)


def _watching(
    context: RoleContext, store: Store, workers: Sequence[Worker]
) -> contextlib.AbstractContextManager[object]:
    """Look for trouble and tell people, for the length of a with block; by the worker if any."""
    note = in_loop(partial(context.log.note, "qmgr"))
    settings = context.loaded.settings
    return WatchThread(
        lambda: Watch(
            settings=settings,
            store=store,
            incarnation=context.incarnation,
            state_dir=context.loaded.state_dir,
            notifier=open_notifier(settings, store, note),
            note=note,
            unreached=lambda: workers[0].unreached() if workers else {},
            claimed_s=lambda: workers[0].claimed_s() if workers else 0.0,
            claim_trouble=lambda: workers[0].claim_trouble() if workers else None,
            clock_step=lambda: workers[0].clock.recent_step() if workers else None,
        ).run()
    )


def has_lock_file(directory: Path, settings: Settings) -> Callable[[str], bool]:
    """Return whether the lock of an incarnation says if it lives: all of a SQLite queue are here.

    Those of a shared queue may be frozen, or cut off, here as elsewhere.
    """
    if settings.queue.is_postgres:
        return lambda _incarnation: False
    return lambda incarnation: (directory / incarnation).exists()


def bury_dead(directory: Path, store: Store) -> list[tuple[str, int, list[Begun]]]:
    """Bury this host's dead incarnations; return how many leases each held, and what it sent."""
    buried = []
    for incarnation in instances.dead_incarnations(directory):
        begun = instances.begun_by(directory, incarnation)
        buried.append((incarnation, store.instances.bury(incarnation, begun=begun), begun))
        instances.forget(directory, incarnation)
    return buried
