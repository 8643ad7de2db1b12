"""The front: takes mail."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator, Mapping
from functools import partial

from relaygw.alerting.history import history_kept
from relaygw.inbound.intake import Intake
from relaygw.inbound.listeners import FrontService
from relaygw.inbound.mail_classes import MailClasses
from relaygw.inbound.screen import Check, ContentLook, HoldCheck, Screen, refreshed
from relaygw.inbound.sources import SourceCounts, counts_kept
from relaygw.inbound.storms import StormCheck
from relaygw.mail.finding import Kind, words_of
from relaygw.observe.counters import FrontMetrics
from relaygw.observe.history import History
from relaygw.observe.metrics import open_metrics
from relaygw.observe.observer import FrontObserver
from relaygw.operations.flush import flush
from relaygw.operations.obstacles import wait_words
from relaygw.roles import open_store
from relaygw.roles.process import Heartbeat, RoleContext, first_of, notifier, registered, stop_event
from relaygw.roles.uses import uses_kept, written
from relaygw.settings.model import Settings
from relaygw.store import hints
from relaygw.store.store import Store

RETIRE_S = 60.0
"""How long a front that a reload replaced serves the sessions it has."""


async def front(context: RoleContext) -> int:
    """Take mail until told to end; return the exit code."""
    store = open_store(  # before TERM has a handler
        context.loaded, first_in_line=True, is_checked=True, connections=context.connections
    )
    stop = stop_event(context)
    retire = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, retire.set)
    log = context.log
    sender = hints.HintSender(hints.hint_directory(context.loaded.state_dir))
    history = History()
    file = open_metrics(context.metrics, log)
    metrics = FrontMetrics(file) if file is not None else None
    settings = context.loaded.settings
    classes, counts = mail_classes(settings), SourceCounts()
    observer = FrontObserver(log, history, metrics)
    screened = screen(settings, store, observer)
    service = FrontService(
        settings,
        store,
        observer,
        intake=_intake(context, classes, screened),
        notify=notifier(context, sender.send),
        flush=partial(flush, store, settings, sender.send),
        look_around=partial(wait_words, store, settings),
        counts=counts,
        screen=screened,
        readings=context.readings,
    )
    with registered(context, "front", store, later=True):
        beat = asyncio.create_task(Heartbeat(context, "front", store).beat())
        async with (
            history_kept(history, store),
            uses_kept(service.uses, store),
            written(service.throttled, store.visitors.note_throttled),
            counts_kept(counts, classes, store, told=partial(log.note, "qmgr")),
            refreshed(screened),
        ):
            await service.start(context.sockets)
            sender.send()  # for what a front before this one committed and died over
            await first_of(stop.wait(), retire.wait())
            if retire.is_set() and not stop.is_set():
                service.retire()
                await first_of(stop.wait(), service.ended(), within_s=RETIRE_S)
            await service.stop()
        beat.cancel()
    store.close()
    return 0


def _intake(context: RoleContext, classes: MailClasses | None, screen: Screen) -> Intake:
    settings, state_dir = context.loaded.settings, context.loaded.state_dir
    takes_once = settings.duplicates == "once"
    return Intake(
        settings, state_dir=state_dir, classes=classes, screen=screen, takes_once=takes_once
    )


def mail_classes(settings: Settings) -> MailClasses | None:
    """Return the known classes of mail; None where nothing asks for them."""
    return MailClasses() if settings.counts_sources else None


def screen(settings: Settings, store: Store, observer: FrontObserver) -> Screen:
    """Return the checks that are on, in order."""
    checks = [*_checks(settings, store, observer)]
    return Screen(checks, told=lambda line: observer.log.note("cleanup", line))


def _checks(settings: Settings, store: Store, observer: FrontObserver) -> Iterator[Check]:
    yield HoldCheck(store)
    if settings.storms.action != "off":
        told = partial(observer.log.note, "cleanup")
        yield StormCheck(settings.storms, store, told=told, counted=observer.repeated)
    if settings.content_check.is_on:
        yield ContentLook(settings.content_check, partial(_tell_found, observer))


def _tell_found(
    observer: FrontObserver, queue_id: str, found: Mapping[Kind, int], is_held: bool
) -> None:
    what = f"content check: found {words_of(found)}{'; held' if is_held else ''}"
    observer.log.note("cleanup", f"{queue_id}: warning: {what}")
    observer.found([kind.value for kind in found], is_held=is_held)
