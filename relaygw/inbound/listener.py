"""The front as a service: listening sockets in, sessions out, one committer behind them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from relaygw.inbound import patience
from relaygw.inbound.certificate import Certificate
from relaygw.inbound.clients import ClientTable
from relaygw.inbound.descriptors import ensure_descriptors
from relaygw.inbound.front import Front
from relaygw.inbound.group_commit import GroupCommitter
from relaygw.inbound.intake import Intake
from relaygw.inbound.maildrop import Maildrop
from relaygw.inbound.rates import ClientRates
from relaygw.inbound.session import FrontSession
from relaygw.mail.envelope import AcceptedMessage
from relaygw.observe.maillog import MailLog
from relaygw.observe.metrics.meters import SILENT, FrontMeter
from relaygw.settings.listener import Listener
from relaygw.settings.model import Settings
from relaygw.store.store import Store

if TYPE_CHECKING:
    from relaygw.inbound.authentication import Authenticator

BACKLOG = 1024
LARGE_MESSAGES_AT_ONCE = 2
"""Large messages that are written at once: one is read from its file while one is stored."""
STOP_S = 25.0
"""How long transactions under way may take when the front stops."""
MAILDROP_STOP_S = 3.0
"""How long, after that, what was being taken from the maildrop may still take."""
_COUNT_EACH_S = 1.0


class FrontService:
    """Accepts mail on every listener of a configuration, and takes it from the maildrop."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        log: MailLog,
        *,
        intake: Intake,
        notify: Callable[[], None],
        meter: FrontMeter = SILENT,
    ) -> None:
        self._settings = settings
        self._log = log
        self._meter = meter
        self._notify = notify
        self._committer = GroupCommitter(store, committed=self._committed, meter=meter)
        self._intake = intake
        self._session_left = asyncio.Event()
        self._large_message_turn = asyncio.Semaphore(LARGE_MESSAGES_AT_ONCE)
        self._maildrop = Maildrop(
            settings,
            store=store,
            intake=intake,
            committer=self._committer,
            log=log,
            large_message_turn=self._large_message_turn,
        )
        self._authenticator = _authenticator(settings)
        self._fronts: list[Front] = []
        self._servers: list[asyncio.Server] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Serve on `sockets`, which are bound and stand in the order of the listeners."""
        loop = asyncio.get_running_loop()
        wanted = sum(one.max_connections for one in self._settings.listeners)
        allowed, problem = ensure_descriptors(wanted)
        if problem is not None:
            self._log.note("smtpd", f"warning: {problem}")
        for listener, listening in zip(self._settings.listeners, sockets, strict=True):
            front = self._front(listener, -(-listener.max_connections * allowed // wanted))
            self._fronts.append(front)
            self._servers.append(
                await loop.create_server(
                    lambda front=front: FrontSession(front, loop),  # type: ignore[misc]
                    sock=listening,
                    backlog=BACKLOG,
                )
            )
        self._maildrop.start()
        self._tasks = [
            loop.create_task(
                patience.watch(lambda: (one for front in self._fronts for one in front.sessions))
            ),
            loop.create_task(self._keep_counting()),
        ]

    def retire(self) -> None:
        """Take no new connections; those that are open go on until their clients leave.

        The maildrop is left to the next front as soon as what was begun is stored.
        """
        self._maildrop.retire()
        for server in self._servers:
            server.close()

    async def ended(self) -> None:
        """Return when the last session is over."""
        while any(front.sessions for front in self._fronts):
            self._session_left.clear()
            await self._session_left.wait()

    async def stop(self) -> None:
        """Refuse what is new, let transactions under way end, commit everything."""
        self.retire()
        for front in self._fronts:
            front.is_stopping = True
            for session in tuple(front.sessions):
                session.stop_if_idle()
        try:
            await asyncio.wait_for(self.ended(), STOP_S)
        except TimeoutError:
            self._log.note("master", "warning: sessions were cut: they did not end in time")
        await self._maildrop.ended(MAILDROP_STOP_S)
        await self._committer.drain()
        for task in self._tasks:
            task.cancel()
        self._count()
        if self._authenticator is not None:
            self._authenticator.close()

    def _front(self, listener: Listener, max_connections: int) -> Front:
        name = str(listener.bind)
        certificate = None
        if listener.tls.mode != "off":
            certificate = Certificate(listener.tls, name=name, log=self._log)
            certificate.context()  # says at once what is wrong with it
        return Front(
            listener=listener,
            name=name,
            authenticator=self._authenticator if listener.auth != "off" else None,
            certificate=certificate,
            rates=ClientRates(listener.rate_per_client) if listener.rate_per_client else None,
            clients=ClientTable(listener, max_connections),
            intake=self._intake,
            committer=self._committer,
            log=self._log,
            session_left=self._session_left,
            large_message_turn=self._large_message_turn,
            meter=self._meter.listener(name),
        )

    def _committed(self, messages: Sequence[AcceptedMessage]) -> None:
        self._notify()
        self._meter.accepted(messages)
        self._log.accepted(messages)

    async def _keep_counting(self) -> None:
        while True:
            self._count()
            await asyncio.sleep(_COUNT_EACH_S)

    def _count(self) -> None:
        self._meter.sample()
        for front in self._fronts:
            front.meter.sample(len(front.sessions))


def _authenticator(settings: Settings) -> Authenticator | None:
    if not settings.users:
        return None
    from relaygw.inbound.authentication import Authenticator  # argon2 costs those who need it

    return Authenticator(settings.users)
