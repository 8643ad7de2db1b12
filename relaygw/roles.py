"""The roles front, delivery and web: the only file that wires concrete classes.

A role is one process with one event loop. It ends when its supervisor says so (TERM), or
when the supervisor dies (its pipe closes); a front may also be retired (USR2): it takes no
new connections and ends with its last session.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from relaygw import __version__, service_file
from relaygw.errors import SettingsError, StoreUnavailable
from relaygw.observe.maillog import MailLog
from relaygw.settings.load import LoadedSettings
from relaygw.settings.show import fingerprint
from relaygw.store import hints, lifelines, migrate
from relaygw.store.place import Place
from relaygw.store.protocol import Begun, Instance, Store
from relaygw.store.sqlite import SqliteStore

ROLES = ("front", "delivery", "web")
RETIRE_S = 60.0
"""How long a front that a reload replaced serves the sessions it has."""
_GC_THRESHOLD = 20_000
_SWITCH_INTERVAL_S = 0.0005
Buried = tuple[str, int, list[Begun]]
"""An incarnation, how many leases it held, and the deliveries it was sending."""
EXIT_LEASE_LOST = 3
"""The exit code of a delivery worker that was taken over: start a fresh one."""


def queue_place(loaded: LoadedSettings) -> Place:
    """Return where the queue of a configuration lies."""
    queue = loaded.settings.queue

    def password() -> str | None:
        try:
            return queue.password.read() if queue.password is not None else None
        except SettingsError as error:
            raise StoreUnavailable(f"queue.password: {error}") from error

    return Place(url=queue.url, password=password, allow_unsafe=queue.allow_unsafe)


def prepare_schema(loaded: LoadedSettings) -> None:
    """Bring a SQLite queue up to date; a shared one is only checked: see `relaygw db upgrade`."""
    if loaded.settings.queue.is_postgres:
        check_schema(loaded)
    else:
        upgrade_schema(loaded)


def open_store(loaded: LoadedSettings, *, first_in_line: bool = False) -> Store:
    """Open the queue of a configuration; raises SchemaMismatch, StoreUnavailable."""
    queue = loaded.settings.queue
    place = queue_place(loaded)
    migrate.check_schema(place)
    keep_content = queue.keep_content > 0
    if place.is_postgres:
        from relaygw.store.postgres import PostgresStore

        return PostgresStore(place, keep_content=keep_content)
    return SqliteStore(queue.url, keep_content=keep_content, first_in_line=first_in_line)


def wake_workers(loaded: LoadedSettings) -> None:
    """Let this host's workers look at the queue now instead of within a second."""
    sender = hints.HintSender(hints.hint_directory(loaded.state_dir))
    sender.send()
    sender.close()


def upgrade_schema(loaded: LoadedSettings) -> tuple[str | None, str]:
    """Bring the schema up to date; return the revisions before and after."""
    return migrate.upgrade(queue_place(loaded))


def check_schema(loaded: LoadedSettings) -> None:
    """Raise SchemaMismatch unless the queue has the schema of this version."""
    migrate.check_schema(queue_place(loaded))


def note_settings(loaded: LoadedSettings, *, occasion: str) -> None:
    """Leave a line in the audit trail if the settings are others than before."""
    from relaygw.operations.changed_settings import note_settings

    store = open_store(loaded)
    try:
        now_ms = time.time_ns() // 1_000_000
        note_settings(store, loaded.settings, occasion=occasion, now_ms=now_ms)
    finally:
        store.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleContext:
    """What the supervisor hands to a role's process."""

    loaded: LoadedSettings
    sockets: Sequence[socket.socket] = ()
    lifeline: int  # read end of a pipe that closes when the supervisor dies
    log: MailLog
    metrics: Path | None = None  # where processes count; None: they do not
    incarnation: str = field(default_factory=lambda: secrets.token_hex(6))

    @property
    def instances_dir(self) -> Path:
        """Where the lock files of this host's incarnations lie."""
        return lifelines.lifeline_directory(self.loaded.state_dir)

    def instance(self, role: str) -> Instance:
        """Return the registration of this process."""
        return Instance(
            incarnation=self.incarnation,
            name=self.loaded.settings.hostname,
            role=role,
            pid=os.getpid(),
            version=__version__,
            fingerprint=fingerprint(self.loaded.settings),
        )


def run_role(role: str, context: RoleContext) -> int:
    """Run one role in this process until it is told to end; return the exit code."""
    runners = {"front": _front, "delivery": _delivery, "web": _web}
    return _run(runners[role](context))


def _run(main: Coroutine[None, None, int]) -> int:
    gc.set_threshold(_GC_THRESHOLD)  # hardly any garbage here is cyclic
    sys.setswitchinterval(_SWITCH_INTERVAL_S)  # the loop gets its turn beside threads that compute
    try:
        import uvloop
    except ImportError:  # everything works without it, only slower
        return asyncio.run(main)
    return uvloop.run(main)


def _stop_event(context: RoleContext) -> asyncio.Event:
    """Return an event that TERM, INT or the supervisor's death sets; USR1 reopens the log."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def orphaned() -> None:
        loop.remove_reader(context.lifeline)
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # the supervisor decides
    loop.add_signal_handler(signal.SIGUSR1, context.log.reopen)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})  # one may have come already
    loop.add_reader(context.lifeline, orphaned)
    return stop


@contextlib.contextmanager
def _registered(context: RoleContext, role: str, store: Store) -> Iterator[lifelines.Lifeline]:
    """Announce this process for the length of a with block."""
    lifeline = lifelines.Lifeline(context.instances_dir, context.incarnation)
    if role == "front":
        _warn_of_a_namesake(context, store)
    store.register(context.instance(role))
    try:
        yield lifeline
    finally:
        with contextlib.suppress(StoreUnavailable):
            store.bury(context.incarnation)
            lifeline.release()


def _warn_of_a_namesake(context: RoleContext, store: Store) -> None:
    """Say that a gateway elsewhere has this name: what is told of one would be of both."""
    for one in store.instances():
        is_of_this_host = (context.instances_dir / one.incarnation).exists()
        is_namesake = one.role == "front" and one.name == context.loaded.settings.hostname
        if is_namesake and not is_of_this_host:
            context.log.note(
                "master",
                f"warning: another gateway of this queue has the hostname {one.name} (or had it "
                "until a moment ago); give each a hostname of its own",
            )
            return


async def _front(context: RoleContext) -> int:
    from relaygw.alerting.history import history_kept
    from relaygw.inbound.intake import Intake
    from relaygw.inbound.listener import FrontService
    from relaygw.observe.history.front import FrontHistory
    from relaygw.observe.history.tally import HistoryTally
    from relaygw.observe.metrics.opening import front_meter

    stop = _stop_event(context)
    retire = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, retire.set)
    store = open_store(context.loaded, first_in_line=True)
    log = context.log
    sender = hints.HintSender(hints.hint_directory(context.loaded.state_dir))
    notify_others = _notifier(context)

    def notify() -> None:
        sender.send()
        notify_others()

    tally = HistoryTally()
    service = FrontService(
        context.loaded.settings,
        store,
        log,
        intake=Intake(context.loaded.settings, state_dir=context.loaded.state_dir),
        notify=notify,
        meter=FrontHistory(front_meter(context.metrics, log), tally),
    )
    with _registered(context, "front", store):
        beat = asyncio.create_task(_Pulse(context, "front", store).beat())
        async with history_kept(tally, store):
            await service.start(context.sockets)
            sender.send()  # for what a front before this one committed and died over
            await _first_of(stop.wait(), retire.wait())
            if retire.is_set() and not stop.is_set():
                service.retire()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETIRE_S):
                        await _first_of(stop.wait(), service.ended())
            await service.stop()
        beat.cancel()
    store.close()
    return 0


async def _delivery(context: RoleContext) -> int:
    from relaygw.alerting.history import history_kept
    from relaygw.delivery.janitor import Janitor
    from relaygw.delivery.leases import LeaseLost
    from relaygw.delivery.worker import Worker
    from relaygw.observe.history.delivery import DeliveryHistory
    from relaygw.observe.history.tally import HistoryTally
    from relaygw.observe.metrics.opening import delivery_meter

    stop = _stop_event(context)
    store = open_store(context.loaded)
    log = context.log
    hint_dir = hints.hint_directory(context.loaded.state_dir)
    hint_socket = hints.open_hint_socket(hint_dir, context.incarnation)
    exit_code = 0
    try:
        with _registered(context, "delivery", store) as lifeline:
            janitor = asyncio.create_task(
                Janitor(
                    context.loaded.settings,
                    store,
                    log,
                    incarnation=context.incarnation,
                    bury_dead_of_this_host=lambda: bury_dead(context.instances_dir, store),
                    wake_workers=hints.HintSender(hint_dir).send,
                ).run()
            )
            tally = HistoryTally()
            meter = delivery_meter(context.metrics, context.loaded.settings.providers, log)
            worker = Worker(
                context.loaded.settings,
                store,
                log,
                incarnation=context.incarnation,
                in_flight=lifeline,
                hints=hint_socket,
                meter=DeliveryHistory(meter, tally),
            )
            with _listening(context, worker.wake), _watching(context, store, worker.unreached):
                async with history_kept(tally, store):
                    await worker.run(stop)
            janitor.cancel()
    except LeaseLost as lost:
        log.note("qmgr", f"warning: {lost}; a fresh worker takes over")
        exit_code = EXIT_LEASE_LOST
    finally:
        if hint_socket is not None:
            hint_socket.close()
            (hint_dir / context.incarnation).unlink(missing_ok=True)
    store.close()
    return exit_code


def _watching(
    context: RoleContext, store: Store, unreached: Callable[[], Mapping[str, float]]
) -> contextlib.AbstractContextManager[object]:
    """Look for trouble and tell people, for the length of a with block."""
    from relaygw.alerting.aside import Aside
    from relaygw.alerting.opening import open_watch

    loop = asyncio.get_running_loop()

    def note(text: str) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(context.log.note, "qmgr", text)

    return Aside(
        lambda: open_watch(
            context.loaded.settings,
            store,
            incarnation=context.incarnation,
            state_dir=context.loaded.state_dir,
            note=note,
            unreached=unreached,
        ).run()
    )


def _notifier(context: RoleContext) -> Callable[[], None]:
    """Return what tells other instances that there is something new."""
    place = queue_place(context.loaded)
    if not place.is_postgres:
        return lambda: None
    from relaygw.store.notify import NotifySender

    return NotifySender(place).send


@contextlib.contextmanager
def _listening(context: RoleContext, wake: Callable[[], None]) -> Iterator[None]:
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


async def _web(context: RoleContext) -> int:
    from relaygw.web.app import create_app
    from relaygw.web.health import STALE_AFTER_S
    from relaygw.web.indexing import Indexer
    from relaygw.web.keeping_indexed import keep_indexed
    from relaygw.web.metrics import MetricsPage
    from relaygw.web.server import serve_web

    stop = _stop_event(context)
    store = open_store(context.loaded)
    settings = context.loaded.settings
    with _registered(context, "web", store):
        pulse = _Pulse(context, "web", store)
        beat = asyncio.create_task(pulse.beat())
        mark = service_file.draining_mark(context.loaded.state_dir)

        async def is_ready() -> str | None:
            if mark.exists():
                return "this instance is being drained"
            return "the store takes nothing" if pulse.age_s > STALE_AFTER_S else None

        metrics = MetricsPage(store, settings, state_dir=context.loaded.state_dir)
        indexer = Indexer(store)
        reading = asyncio.create_task(keep_indexed(indexer, stop), name="indexing")
        app = create_app(
            store,
            settings,
            indexer=indexer,
            is_ready=is_ready,
            metrics=metrics,
            stop=stop,
            wake_workers=lambda: wake_workers(context.loaded),
        )
        pages, *others = context.sockets
        await asyncio.gather(
            serve_web(app, pages, stop=stop),
            *(serve_web(metrics.app(), one, stop=stop) for one in others),
        )
        await reading
        beat.cancel()
    store.close()
    return 0


class _Pulse:
    """Renews the registration of a role that holds no leases."""

    def __init__(self, context: RoleContext, role: str, store: Store) -> None:
        self._context = context
        self._role = role
        self._store = store
        self._written_at_s = time.monotonic()

    @property
    def age_s(self) -> float:
        """How long ago the store last took it."""
        return time.monotonic() - self._written_at_s

    async def beat(self) -> None:
        """Renew until cancelled."""
        from relaygw.delivery.leases import HEARTBEAT_S

        while True:
            try:
                await asyncio.to_thread(self._write)
                self._written_at_s = time.monotonic()
            except StoreUnavailable as error:
                self._context.log.note("master", f"warning: heartbeat failed: {error}")
            await asyncio.sleep(HEARTBEAT_S)

    def _write(self) -> None:
        if not self._store.heartbeat(self._context.incarnation):
            # buried while it was stopped: it holds nothing, so it may just come back
            self._store.register(self._context.instance(self._role))


async def _first_of(*waits: Coroutine[None, None, object]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def bury_dead(directory: Path, store: Store) -> list[Buried]:
    """Bury this host's dead incarnations; return what each held and what it was sending."""
    buried = []
    for incarnation in lifelines.dead_incarnations(directory):
        begun = lifelines.begun_by(directory, incarnation)
        buried.append((incarnation, store.bury(incarnation, begun=begun), begun))
        lifelines.forget(directory, incarnation)
    return buried
