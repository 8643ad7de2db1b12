"""The process of a role: what it is handed, its signals, registration, heartbeat and hints.

It ends when its supervisor says so (TERM), or when the supervisor dies (its pipe closes); a front
may also be retired (USR2): it takes no new connections and ends with its last session.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import mmap
import os
import secrets
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from relaygw import __version__
from relaygw.delivery.waits import HEARTBEAT_S
from relaygw.errors import StoreUnavailable
from relaygw.late_packages import missing_package
from relaygw.mail.clock import clock_ms
from relaygw.observe.maillog import MailLog
from relaygw.observe.readings import ProcessReadings, unwatched
from relaygw.roles import heap, hears_of_mail, queue_place
from relaygw.roles.demand import Demand
from relaygw.settings.load import LoadedSettings
from relaygw.settings.model import Settings, fingerprint
from relaygw.store import hints, instances
from relaygw.store.capacity import HINTED_FROM
from relaygw.store.database import MAX_CONNECTIONS
from relaygw.store.instances import Instance
from relaygw.store.sqlite import sqlite_dialect
from relaygw.store.store import Store
from relaygw.upstream.classifier import Classifier

ROLES = ("front", "delivery", "web")
_IMPORTED_LATE = ("anyio._backends._asyncio", "uvicorn.lifespan.off")
"""What libraries of the web role import once they run."""
_OF_POSTGRES = ("relaygw.store.postgres", "sqlalchemy.dialects.postgresql.psycopg")
_AT = struct.Struct("d")
_PID = struct.Struct("i")
_SWITCH_INTERVAL_S = 0.0005


@dataclass(frozen=True, slots=True)
class Beat:
    """Where a role notes that its event loop runs, for its supervisor."""

    memory: mmap.mmap
    slot: int
    each_s: float

    def note(self, at_s: float) -> None:
        """Note a time; 0 before the first."""
        _AT.pack_into(self.memory, self.slot * _AT.size, at_s)

    def at_s(self) -> float:
        """Return the time noted last."""
        (noted_s,) = _AT.unpack_from(self.memory, self.slot * _AT.size)
        return float(noted_s)

    def keep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note it again and again, as long as the loop runs."""
        self.note(time.monotonic())
        loop.call_later(self.each_s, self.keep, loop)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleContext:
    """What the supervisor hands to the process of a role."""

    loaded: LoadedSettings
    sockets: Sequence[socket.socket] = ()
    lifeline: int  # read end of a pipe that closes when the supervisor dies
    log: MailLog
    beat: Beat | None = None
    handover: Handover | None = None
    readings: ProcessReadings = field(default_factory=unwatched)
    metrics: Path | None = None  # where processes count; None: they do not
    demand: Demand | None = None  # for the web role; None: that runs always
    form_key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    """Of forms without a session: pages stay open longer than a web role runs."""
    roles: Sequence[str] = ROLES  # of this gateway
    connections: int = MAX_CONNECTIONS  # to PostgreSQL, of this process: see store.capacity
    began_at_ms: int = field(default_factory=clock_ms)  # the gateway, not this role of it
    incarnation: str = field(default_factory=lambda: secrets.token_hex(6))

    def begins_nothing(self) -> None:
        """Tell the supervisor that this process begins nothing more."""
        if self.handover is not None:
            self.handover.tell(os.getpid())

    @property
    def instances_dir(self) -> Path:
        """Where the lock files of this host's incarnations lie."""
        return instances.lifeline_directory(self.loaded.state_dir)

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


class Handover:
    """Tells the supervisor which processes of old settings begin nothing more."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        """Return a descriptor that is readable when one has told."""
        return self._read

    def tell(self, pid: int) -> None:
        """Note a process; a supervisor that does not wait for it reads it with the next."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, _PID.pack(pid))

    def take(self) -> set[int]:
        """Return who has told since the last call."""
        with contextlib.suppress(BlockingIOError):
            return {pid for (pid,) in _PID.iter_unpack(os.read(self._read, 4096 * _PID.size))}
        return set()


def preload(roles: Sequence[str], settings: Settings) -> None:
    """Load what the roles need before the fork, so that they share it."""
    _loop_runner()
    codecs.lookup("ascii")
    if settings.queue.is_postgres:
        for name in _OF_POSTGRES:
            import_module(name)
    else:
        sqlite_dialect()
    for role in roles:
        _main_of(role)
    if "delivery" in roles:
        for provider in settings.providers.values():
            Classifier(provider)  # what is known of all replies stays
    if "web" in roles and hears_of_mail(settings):
        import_module("relaygw.roles.feedback")
    for name in _IMPORTED_LATE if "web" in roles else ():
        with contextlib.suppress(ImportError):
            import_module(name)


def run_role(role: str, context: RoleContext) -> int:
    """Run one role in this process until it is told to end; return the exit code."""
    with contextlib.suppress(OSError):  # how ps and top show it; the kernel keeps 15 characters
        Path("/proc/self/comm").write_text(f"relaygw-{role}")
    if role != "front":
        _yield_to_others()
    heap.keep_small()
    if f"relaygw.roles.{role}" not in sys.modules:  # one that runs on demand
        try:
            preload((role,), context.loaded.settings)
        except ModuleNotFoundError as error:
            raise missing_package(error) from error
        heap.settle()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)  # the loop gets its turn beside threads that compute
    return _loop_runner()(_main_of(role)(context))


def _yield_to_others() -> None:
    """Interrupt nobody on waking (sched(7)): a client waits for the front, for others nobody does.

    The share of the processor stays the same; what an administrator chose, too.
    """
    with contextlib.suppress(OSError, AttributeError):  # not allowed; another system than Linux
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _main_of(role: str) -> Callable[[RoleContext], Coroutine[None, None, int]]:
    main: Callable[[RoleContext], Coroutine[None, None, int]]
    main = getattr(import_module(f"relaygw.roles.{role}"), role)
    return main


def _loop_runner() -> Callable[[Coroutine[None, None, int]], int]:
    try:
        import uvloop
    except ImportError:  # everything works without it, only slower
        return asyncio.run
    return uvloop.run


def stop_event(context: RoleContext) -> asyncio.Event:
    """Return an event that TERM, INT or the supervisor's death sets; USR1 reopens the log."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def orphaned() -> None:
        loop.remove_reader(context.lifeline)
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # the supervisor decides
    loop.add_signal_handler(signal.SIGUSR1, context.log.channel.reopen)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})  # one may have come already
    loop.add_reader(context.lifeline, orphaned)
    if context.beat is not None:
        context.beat.keep(loop)
    return stop


@contextlib.contextmanager
def registered(
    context: RoleContext, role: str, store: Store, *, later: bool = False
) -> Iterator[instances.Lifeline]:
    """Announce this process for the length of a with block.

    `later`: when the store is out of reach its `Heartbeat` does so as soon as it is back.
    """
    lifeline = instances.Lifeline(context.instances_dir, context.incarnation)
    try:
        if role == "front":
            _warn_of_a_namesake(context, store)
        store.instances.register(context.instance(role))
    except StoreUnavailable as error:
        if not later:
            raise
        context.log.note("master", f"warning: {error}; the {role} continues without it")
    try:
        yield lifeline
    finally:
        with contextlib.suppress(StoreUnavailable):
            # what has no recorded outcome is told of, as if the process had been killed
            begun = instances.begun_by(context.instances_dir, context.incarnation)
            store.instances.bury(context.incarnation, begun=begun)
            lifeline.release()


def _warn_of_a_namesake(context: RoleContext, store: Store) -> None:
    """Say that a gateway elsewhere has this name: what is told of one would be of both."""
    # one of this host has a file while it is registered: it may end, or begin, while we look
    before = {path.name for path in context.instances_dir.iterdir()}
    for instance in store.instances.registered():
        is_of_this_host = (
            instance.incarnation in before
            or (context.instances_dir / instance.incarnation).exists()
        )
        is_namesake = instance.role == "front" and instance.name == context.loaded.settings.hostname
        if is_namesake and not is_of_this_host:
            context.log.note(
                "master",
                f"warning: another gateway of this queue has the hostname {instance.name} (or had "
                "it until recently); give each its own hostname",
            )
            return


class Heartbeat:
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
        """Renew until cancelled, in a thread that does nothing else."""
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="heartbeat")
        try:
            while True:
                try:
                    await asyncio.get_running_loop().run_in_executor(thread, self._write)
                    self._written_at_s = time.monotonic()
                except StoreUnavailable as error:
                    self._context.log.note("master", f"warning: heartbeat failed: {error}")
                await asyncio.sleep(HEARTBEAT_S)
        finally:
            thread.shutdown(wait=False)

    def _write(self) -> None:
        if not self._store.instances.heartbeat(self._context.incarnation):
            # buried while it was stopped: it holds nothing, so it may just come back
            self._store.instances.register(self._context.instance(self._role))


async def first_of(*waits: Coroutine[None, None, object], within_s: float | None = None) -> None:
    """Return when one of several waits is over, or time is; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def in_loop(call: Callable[..., object]) -> Callable[..., None]:
    """Return a function by which any thread calls `call` in the running loop, while that runs."""
    loop = asyncio.get_running_loop()

    def hand_over(*arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(call, *arguments)

    return hand_over


def notifier(context: RoleContext, send_hint: Callable[[], None]) -> Callable[[], None]:
    """Return a function that tells this host's workers, by `send_hint`, and others of new mail."""
    place = queue_place(context.loaded)
    if not (place.is_postgres and context.connections >= HINTED_FROM):
        return send_hint
    notify_others = hints.NotifySender(place).send

    def notify() -> None:
        send_hint()
        notify_others()

    return notify


@contextlib.contextmanager
def listening(context: RoleContext, wake: Callable[[], None]) -> Iterator[None]:
    """Call `wake` in the event loop when another instance has something new."""
    place = queue_place(context.loaded)
    if not (place.is_postgres and context.connections >= HINTED_FROM):
        yield
        return
    listener = hints.NotifyListener(place, in_loop(wake))
    try:
        yield
    finally:
        listener.close()
