"""The front: takes mail."""

from __future__ import annotations

import asyncio
import signal
from functools import partial

from relaygw.alerting.history import history_kept
from relaygw.inbound.intake import Intake
from relaygw.inbound.listeners import FrontService
from relaygw.inbound.screen import refreshed
from relaygw.inbound.sources import SourceCounts, counts_kept
from relaygw.observe.counters import FrontMetrics
from relaygw.observe.metrics import can_count
from relaygw.observe.observer import FrontObserver, History
from relaygw.roles import open_store
from relaygw.roles.process import Heartbeat, RoleContext, first_of, notifier, registered, stop_event
from relaygw.roles.screening import mail_classes, screen
from relaygw.roles.uses import uses_kept, written
from relaygw.store import hints

RETIRE_S = 60.0
"""How long a front that a reload replaced serves the sessions it has."""


async def front(context: RoleContext) -> int:
    """Take mail until told to end; return the exit code."""
    store = open_store(
        context.loaded, first_in_line=True, is_checked=True
    )  # before TERM has a handler
    stop = stop_event(context)
    retire = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, retire.set)
    log = context.log
    sender = hints.HintSender(hints.hint_directory(context.loaded.state_dir))
    history = History()
    metrics = FrontMetrics() if can_count(context.metrics, log) else None
    settings = context.loaded.settings
    classes, counts = mail_classes(settings), SourceCounts()
    observer = FrontObserver(log, history, metrics)
    screened = screen(settings, store, observer)
    service = FrontService(
        settings,
        store,
        observer,
        intake=Intake(
            settings,
            state_dir=context.loaded.state_dir,
            classes=classes,
            screen=screened,
            takes_once=settings.duplicates == "once",
        ),
        notify=notifier(context, sender.send),
        counts=counts,
        screen=screened,
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
