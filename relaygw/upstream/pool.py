"""The connections to one provider: opened when needed, reused newest first, never too many.

Those that are closing, in tasks of their own, count as well, against what is permitted to this
worker. Only opening waits, and a caller cancelled there leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable

from relaygw.mail.outcome import Stage
from relaygw.settings.addresses import Bind
from relaygw.settings.provider import Chaining as ChainSetting
from relaygw.settings.provider import Provider
from relaygw.upstream.connection import load_tls_context
from relaygw.upstream.credentials import Credentials
from relaygw.upstream.failure import Unreached, UpstreamError
from relaygw.upstream.session import UpstreamSession, open_session


class Pool:
    """Sessions with one provider, for one event loop."""

    def __init__(
        self,
        provider_name: str,
        provider: Provider,
        *,
        ehlo_name: str,
        own: tuple[Bind, ...] = (),
    ) -> None:
        """`own`: listeners that no connection may lead to."""
        self._name = provider_name
        self._provider = provider
        self._ehlo_name = ehlo_name
        self._own = own
        self._tls_context: ssl.SSLContext | None = None
        self._idle: list[tuple[UpstreamSession, float]] = []  # with the loop time of its return
        self._busy_count = 0
        self._sessions: set[UpstreamSession] = set()  # that are open, and not being closed
        self._opened_count = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self.credentials = Credentials(provider)
        """What connections are logged in with; knows what was refused, and when it changes."""
        self.permitted: Callable[[], int] = lambda: provider.max_connections
        """How many connections there may be now; workers share what the provider bears."""
        self.max_messages_per_connection = provider.max_messages_per_connection
        self.unreached_since_s: float | None = None
        """When the first connection was begun since the provider last answered one (monotonic)."""
        self._unreached_why = ""

    def __repr__(self) -> str:
        return (
            f"<Pool {self._name}: {self._busy_count} busy, {len(self._idle)} idle, "
            f"{self._opened_count} opened>"
        )

    @property
    def in_use_count(self) -> int:
        """How many connections are open or opening, not counting those being closed."""
        return self._busy_count + len(self._idle)

    @property
    def connection_count(self) -> int:
        """How many connections are open or opening, those being closed included."""
        return self.in_use_count + len(self._closing)

    @property
    def is_naming(self) -> bool:
        """True while a provider is being told to whom mail goes, and has not answered."""
        return any(session.is_naming for session in self._sessions)

    def unreached(self) -> Unreached | None:
        """Return since when, and why, connecting has been in vain; for any thread."""
        since_s, why = self.unreached_since_s, self._unreached_why
        return None if since_s is None else Unreached(time.monotonic() - since_s, why)

    def forget_unreached(self) -> None:
        """Begin anew: the provider has answered, or nothing waits for it."""
        self.unreached_since_s, self._unreached_why = None, ""

    async def acquire_session(self, *, fresh: bool = False) -> UpstreamSession:
        """Return an idle session or a new one; give it back with `release_session` in any case.

        `fresh`: a new one, for mail that an idle connection failed. Raises UpstreamError.
        """
        if self._is_closed:
            raise UpstreamError(Stage.CONNECT, detail="relaygw is stopping")
        assert self._busy_count < self._provider.max_connections, "more callers than connections"
        self._busy_count += 1
        try:
            if not fresh:
                while self._idle:
                    session, _ = self._idle.pop()
                    if session.is_usable:
                        return session
                    self._close_in_background(session)
            elif self._idle and self.in_use_count > self._provider.max_connections:
                self._close_in_background(self._idle.pop(0)[0])  # not used for longest
            return await self._open_session()
        except BaseException:
            self._busy_count -= 1
            raise

    def release_session(self, session: UpstreamSession) -> None:
        """Take back `session`: kept for the next caller, or closed when worn out or broken."""
        assert self._busy_count > 0, "released twice"
        self._busy_count -= 1
        is_worn_out = session.uses >= self.max_messages_per_connection
        if not session.is_usable or is_worn_out or self._is_closed:
            self._close_in_background(session)
        else:
            self._idle.append((session, asyncio.get_running_loop().time()))

    def close_expired(self) -> None:
        """Close what has been idle for `idle_close`, or was closed by the provider meanwhile."""
        now_s = asyncio.get_running_loop().time()
        idle, self._idle = self._idle, []
        for session, since_s in idle:
            if session.is_usable and now_s - since_s < self._provider.idle_close:
                self._idle.append((session, since_s))
            else:
                self._close_in_background(session)

    def close_idle(self) -> None:
        """Close what is not in use: somebody else waits for a connection."""
        while self._idle:
            self._close_in_background(self._idle.pop()[0])

    async def aclose(self) -> None:
        """Close the idle sessions, and busy ones as they come back; waits for those closing."""
        self._is_closed = True
        self.close_idle()
        if self._closing:
            await asyncio.wait(self._closing)

    async def probe(self, patience_s: float) -> None:
        """Make a connection, log in and leave; raises UpstreamError, also after `patience_s`.

        It does not count against `max_connections`: it is made when nothing else gets through.
        """
        try:
            async with asyncio.timeout(patience_s):
                session = await self._connect()
        except TimeoutError:
            detail = f"no connection within {patience_s:g} s"
            raise UpstreamError(Stage.CONNECT, detail=detail) from None
        self._close_in_background(session)

    async def _open_session(self) -> UpstreamSession:
        while (self._closing or self._idle) and self.connection_count > self.permitted():
            if not self._closing:  # one that came back meanwhile
                self._close_in_background(self._idle.pop(0)[0])
            await asyncio.wait(self._closing, return_when=asyncio.FIRST_COMPLETED)
        session = await self._connect()
        self._sessions.add(session)
        self._opened_count += 1
        return session

    async def _connect(self) -> UpstreamSession:
        if self._tls_context is None:
            self._tls_context = await load_tls_context(self._provider)
        if self.unreached_since_s is None:
            self.unreached_since_s = time.monotonic()
        try:
            session = await open_session(
                self._provider,
                ehlo_name=self._ehlo_name,
                credentials=self.credentials,
                tls_context=self._tls_context,
                own=self._own,
            )
        except UpstreamError as error:
            if error.reply is None:
                self._unreached_why = error.detail
            else:
                self.forget_unreached()
            raise
        self.forget_unreached()
        return session

    def _close_in_background(self, session: UpstreamSession) -> None:
        task = asyncio.get_running_loop().create_task(session.close())
        self._sessions.discard(session)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


# --- chained transactions -------------------------------------------------------------------------

# Whether the next envelope goes out behind a content, as far as a provider shows that it can. RFC
# 2920 section 3.1 permits it wherever PIPELINING is offered, and not every server takes it. By
# default one connection tries it where the provider is far enough to make a difference. The others
# follow once its envelope was answered in step. A server that loses step costs one mail a second
# question on a new connection, and is sent nothing in that way until the next reload.
WORTH_FROM_S = 0.005
"""A round trip of which it is worth to save every second one."""
TRIAL_PATIENCE_S = 3.0
"""How long the first envelope behind a content waits for each answer."""
_TRIALS = 2
_BROKEN_OFF = 3  # in a row, by a closed connection


class Chaining:
    """What is known of one provider; `note` writes a line to the log."""

    def __init__(self, name: str, setting: ChainSetting, note: Callable[[str], None]) -> None:
        self._name = name
        self._note = note
        self._is_asked_for = setting is True
        self._is_off = setting is False
        self._is_proven = setting is True
        self._round_trip_s = float("inf")  # the shortest that was seen
        self._trial: UpstreamSession | None = None
        self._patience_s = 0.0  # of that session otherwise
        self._failures = 0  # trials, or what was broken off in a row

    def may_follow(self, session: UpstreamSession) -> bool:
        """Return whether an envelope may go out behind the content that a session is to send.

        What follows from it is told by `ended`, or `given_up`.
        """
        if self._trial is session:  # what followed its last content was answered in step
            self.given_up(session)
            self._is_proven, self._failures = True, 0
        if self._is_off or self._is_proven:
            return not self._is_off
        self._round_trip_s = min(self._round_trip_s, session.round_trip_s)
        if self._trial is not None or self._round_trip_s < WORTH_FROM_S:
            return False
        self._trial, self._patience_s = session, session.chain_patience_s
        session.chain_patience_s = TRIAL_PATIENCE_S
        return True

    def ended(
        self, session: UpstreamSession, *, was_chained: bool, in_step: bool, is_taken: bool
    ) -> None:
        """Note how a transaction ended.

        `was_chained`: its own envelope was behind a content. `in_step`: it needs no new connection.
        `is_taken`: the provider took the mail.
        """
        if session.has_lost_step:
            self._switch_off()
        elif self._trial is session:
            # a refusal may be meant for the commands behind the content
            if was_chained or not is_taken:
                self._fail(session, _TRIALS)
            elif not session.is_chained:
                self.given_up(session)
        elif was_chained and self._is_proven:
            if in_step:
                self._failures = 0
            else:
                self._fail(session, _BROKEN_OFF)

    def given_up(self, session: UpstreamSession) -> None:
        """Note that what was begun on a session does not go on."""
        if self._trial is session:
            self._trial, session.chain_patience_s = None, self._patience_s

    def _fail(self, session: UpstreamSession, most: int) -> None:
        self.given_up(session)
        self._failures += 1
        if self._failures >= most:
            self._switch_off()

    def _switch_off(self) -> None:
        if self._is_off:
            return
        self._is_off = True
        self._trial = None
        if self._is_asked_for:
            self._note(
                f"warning: provider {self._name} does not handle chained transactions correctly; "
                "they are no longer chained; set its chain_transactions to false"
            )
        else:
            self._note(f"provider {self._name} does not take chained transactions; none are sent")
