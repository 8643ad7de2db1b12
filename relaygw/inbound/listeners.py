"""The front as a service: listening sockets in, sessions out, one committer behind them."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from operator import attrgetter

from relaygw.clients import client_key, guesser, is_trusted, parse_client
from relaygw.errors import TakenBefore
from relaygw.inbound.committer import GroupCommitter
from relaygw.inbound.connection import Connection
from relaygw.inbound.intake import Intake
from relaygw.inbound.local_requests import Flush, LocalRequests
from relaygw.inbound.login import Authenticator
from relaygw.inbound.maildrop import Maildrop
from relaygw.inbound.queue_listing import LookAround
from relaygw.inbound.screen import Screen
from relaygw.inbound.sources import SourceCounts
from relaygw.inbound.throttled_clients import RATE, ThrottledClients
from relaygw.inbound.time_limits import USUAL, TimeLimits
from relaygw.inbound.tls import Certificate
from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.hold import HoldCause
from relaygw.mail.words import counted
from relaygw.observe.events import Accepted
from relaygw.observe.labels import DUPLICATE
from relaygw.observe.maillog import MailLog
from relaygw.observe.observer import FrontObserver, ListenerObserver
from relaygw.observe.readings import ProcessReadings, unwatched
from relaygw.passwords import Uses
from relaygw.settings.listeners import Listener
from relaygw.settings.model import Settings
from relaygw.settings.section import Rate
from relaygw.store.store import Store

_HOLDS = attrgetter("holds")  # of a delivery that is new
BACKLOG = 1024
GRACE_S = 2.0
"""How long, when the front stops, a session may still begin what its client came for."""
STOP_S = 25.0  # how long transactions under way may take when the front stops
MAILDROP_STOP_S = 3.0  # how long, after that, what was being taken from the maildrop may still take
_OWN_DESCRIPTORS = 256
"""What a front needs besides its connections: the database, spool files, the maildrop, the log."""


_MAX_REMEMBERED = 4096
MAX_RATED = 10_000


@dataclass(frozen=True, slots=True)
class Client:
    """An SMTP client by its address."""

    address: str
    key: str  # whose turn it is, see clients.client_key
    is_trusted: bool  # may send without a login
    is_local: bool = False  # nothing it says crosses a network
    is_exempt: bool = False  # from limits of one client
    guesser: str = ""  # who is behind its wrong passwords


class ClientTable:
    """Open connections of one listener by client, `max_connections` at most; what each may do."""

    def __init__(self, listener: Listener, max_connections: int) -> None:
        self._listener = listener
        self._max_connections = max_connections
        self._open: Counter[str] = Counter()
        self._known: dict[str, Client] = {}
        self.total = 0

    def arrive(self, address: str) -> tuple[Client, bool]:
        """Count a new connection; False when it is over a limit (it still must leave)."""
        client = self._known.get(address) or self._remember_client(address)
        self._open[client.address] += 1
        self.total += 1
        is_one_too_many = self._open[client.address] > self._listener.max_connections_per_client
        is_within = client.is_trusted or client.is_exempt or not is_one_too_many
        return client, is_within and self.total <= self._max_connections

    def is_balancer(self, address: str) -> bool:
        """True if connections from `address` begin with a PROXY header."""
        networks = self._listener.proxy_protocol
        return bool(networks) and is_trusted(parse_client(address), networks)

    def arrive_behind(self, balancer: Client, address: str | None) -> tuple[Client, bool]:
        """Count a connection of `balancer` as its client's; unnamed it has no rights."""
        self.leave(balancer)
        client, is_within = self.arrive(address or balancer.address)
        is_named = address is not None  # else it has no rights
        client = replace(client, is_local=False, is_trusted=client.is_trusted and is_named)
        return replace(client, is_exempt=client.is_exempt and is_named), is_within

    def leave(self, client: Client) -> None:
        """Count a connection as closed."""
        self.total -= 1
        self._open[client.address] -= 1
        if not self._open[client.address]:
            del self._open[client.address]

    def _remember_client(self, address: str) -> Client:
        parsed = parse_client(address)
        may_send = is_trusted(parsed, self._listener.allow)
        client = Client(
            str(parsed),
            client_key(parsed),
            may_send,
            is_local=parsed.is_loopback,
            is_exempt=is_trusted(parsed, self._listener.exempt),
            guesser=guesser(parsed),
        )
        if len(self._known) >= _MAX_REMEMBERED:
            self._known.clear()
        self._known[address] = client
        return client


class ClientRates:
    """How many messages each client of a listener may begin in a time: a bucket of tokens each."""

    def __init__(self, rate: Rate) -> None:
        self._capacity = max(1.0, rate.amount)
        self._per_s = rate.per_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> bool:
        """Count a message of `client`; False, and not counted, when it is over the rate."""
        now_s = time.monotonic()
        left, at_s = self._buckets.get(client, (self._capacity, now_s))
        left = min(self._capacity, left + (now_s - at_s) * self._per_s)
        is_within = left >= 1.0
        self._buckets[client] = (left - 1.0 if is_within else left, now_s)
        self._buckets.move_to_end(client)
        while len(self._buckets) > MAX_RATED:  # the one that was quiet longest
            self._buckets.popitem(last=False)
        return is_within


@dataclass(slots=True, kw_only=True)
class ActiveListener:
    """One listener at work: what all its sessions share."""

    settings: Listener
    name: str
    clients: ClientTable
    intake: Intake
    committer: GroupCommitter
    log: MailLog
    session_left: asyncio.Event  # set each time a session ends
    authenticator: Authenticator | None  # None: nobody can log in here
    certificate: Certificate | None
    rates: ClientRates | None
    observer: ListenerObserver
    throttled: ThrottledClients
    readings: ProcessReadings
    limits: TimeLimits
    connections: set[Connection] = field(default_factory=set)
    is_stopping: bool = False

    @property
    def is_implicit(self) -> bool:
        """True when connections begin with TLS."""
        return self.settings.tls.mode == "implicit"

    def enter(self, connection: Connection) -> None:
        """Count a connection, whose client has come to send a message."""
        self.connections.add(connection)
        self.committer.expect(connection)

    def count_closed(self, connection: Connection) -> None:
        """Count a connection as closed."""
        self.connections.discard(connection)
        self.committer.dismiss(connection)
        self.clients.leave(connection.client)
        self.session_left.set()

    def note(self, text: str) -> None:
        """Write a line of the log."""
        self.log.note("smtpd", text)

    def is_too_fast(self, client: Client, user: str | None) -> bool:
        """Count a message of a client, or of who has logged in; True when that is too much."""
        if self.rates is None or client.is_exempt or self.rates.take(user or client.address):
            return False
        self.throttled.note(self.name, f"user {user}" if user else client.guesser, RATE)
        return True


class FrontService:
    """Accepts mail on every listener of a configuration, and takes it from the maildrop."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        observer: FrontObserver,
        *,
        intake: Intake,
        notify: Callable[[], None],
        flush: Flush,
        look_around: LookAround,
        counts: SourceCounts | None = None,
        screen: Screen | None = None,
        readings: ProcessReadings | None = None,
        limits: TimeLimits = USUAL,
    ) -> None:
        self._readings, self._limits = readings or unwatched(), limits
        self._screen = screen
        self._counts = counts
        self._settings = settings
        self._observer = observer
        self._log = observer.log
        self._notify = notify
        self.committer = GroupCommitter(
            store, committed=self._committed, wrote=observer.wrote, refused=self._refused
        )
        self._intake = intake
        self._session_left = asyncio.Event()
        self._maildrop = Maildrop(
            settings,
            store=store,
            intake=intake,
            committer=self.committer,
            log=self._log,
            requests=lambda directory: LocalRequests(directory, settings, flush, self._log),
            look_around=look_around,
            readings=self._readings,
        )
        self.uses: Uses = {}
        self.throttled = ThrottledClients()
        is_known = bool(settings.users)
        self._authenticator = Authenticator(settings.users, self.uses) if is_known else None
        self._listeners: list[ActiveListener] = []
        self._servers: list[asyncio.Server] = []
        self._checking: asyncio.Task[None] | None = None

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Serve on `sockets`, which are bound and stand in the order of the listeners."""
        loop = asyncio.get_running_loop()
        wanted = sum(entry.max_connections for entry in self._settings.listeners)
        allowed, problem = ensure_descriptors(wanted)
        if problem is not None:
            self._log.note("smtpd", f"warning: {problem}")
        for settings, listening in zip(self._settings.listeners, sockets, strict=True):
            share = -(-settings.max_connections * allowed // wanted)
            listener = self._activated(settings, max_connections=share)
            self._listeners.append(listener)
            connect = partial(Connection, listener, loop)
            server = await loop.create_server(connect, sock=listening, backlog=BACKLOG)
            self._servers.append(server)
        self._maildrop.start()
        self._checking = loop.create_task(self._check_sessions())

    def retire(self) -> None:
        """Take no new connections; leave the maildrop once what was begun is stored."""
        self._maildrop.retire()
        for server in self._servers:
            server.close()

    async def ended(self) -> None:
        """Return when the last session is over."""
        while any(listener.connections for listener in self._listeners):
            self._session_left.clear()
            await self._session_left.wait()

    async def stop(self) -> None:
        """Refuse what is new, let transactions under way end, commit everything.

        Who has just come may send what he came for: not every client comes again after a 421.
        """
        self.retire()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await self.ended()
        for listener in self._listeners:
            listener.is_stopping = True
            for connection in tuple(listener.connections):
                connection.stop_if_idle()
        try:
            async with asyncio.timeout(STOP_S - GRACE_S):
                await self.ended()
        except TimeoutError:
            self._log.note("master", "warning: sessions were closed: they did not end in time")
        await self._maildrop.ended(MAILDROP_STOP_S)
        await self.committer.drain()
        if self._checking is not None:
            self._checking.cancel()
        self._sample_counts()
        if self._authenticator is not None:
            self._authenticator.passwords.close()

    def _activated(self, settings: Listener, *, max_connections: int) -> ActiveListener:
        name = str(settings.bind)
        certificate = None
        if settings.tls.mode != "off":
            certificate = Certificate(settings.tls, name=name, log=self._log)
            certificate.context()  # says at once what is wrong with it
        return ActiveListener(
            settings=settings,
            name=name,
            authenticator=self._authenticator if settings.auth != "off" else None,
            certificate=certificate,
            rates=ClientRates(settings.rate_per_client) if settings.rate_per_client else None,
            clients=ClientTable(settings, max_connections),
            intake=self._intake,
            committer=self.committer,
            log=self._log,
            session_left=self._session_left,
            observer=self._observer.listener(name),
            throttled=self.throttled,
            readings=self._readings,
            limits=self._limits,
        )

    def _committed(self, messages: Sequence[AcceptedMessage]) -> None:
        self._notify()
        if self._counts is not None:
            self._counts.add(messages)
        self._observer.tell([Accepted(message) for message in messages])
        for message in messages:
            for cause in dict.fromkeys(chain.from_iterable(map(_HOLDS, message.deliveries))):
                others = _others_words(message, cause)
                # as Postfix's cleanup says it
                self._log.note("cleanup", f"{message.queue_id}: hold: {cause.sentence}{others}")
        if self._screen is not None:
            self._screen.committed(messages)

    def _refused(self, message: AcceptedMessage, why: Exception | None) -> None:
        if self._screen is not None:
            self._screen.withdrawn(message)
        if isinstance(why, TakenBefore):
            self._observer.repeated(DUPLICATE)
            self._log.note("cleanup", f"{why}; not accepted twice")

    async def _check_sessions(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._sample_counts()
            await asyncio.sleep(self._limits.check_each_s)
            for listener in self._listeners:
                for connection in tuple(listener.connections):
                    connection.check_time(loop.time())

    def _sample_counts(self) -> None:
        for listener in self._listeners:
            listener.observer.sample(len(listener.connections))
        self._observer.sample()


def _others_words(message: AcceptedMessage, cause: HoldCause) -> str:
    """Say for whom a message is not held: " (not for 2 other recipients)", or ""."""
    spared = sum(len(part.recipients) for part in message.deliveries if cause not in part.holds)
    return f" (not for {counted(spared, 'other recipient')})" if spared else ""


def ensure_descriptors(connections: int) -> tuple[int, str | None]:
    """Raise this process's limit; return how many connections may be, and what is wrong if fewer.

    A quarter of what the system allows stays with the front, to serve those who are connected.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OWN_DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections, None
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    if possible >= wanted:
        return connections, None
    allowed = min(connections, possible - min(_OWN_DESCRIPTORS, possible // 4))
    return allowed, (
        f"{connections} connections need {wanted} open files, the system allows {possible}: "
        f"{allowed} are accepted at the same time; raise LimitNOFILE of the service, or lower "
        "max_connections"
    )
