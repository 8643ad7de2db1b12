"""One SMTP session with a provider: transactions over an open connection.

With PIPELINING the whole envelope is one write and small content another. A session that saw 421, a
lost connection or a broken protocol is unusable from then on. RFC 5321 sections 3.3 and 4.5.3.2,
RFC 2920.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from relaygw.mail.outcome import Stage
from relaygw.mail.reply import SmtpReply
from relaygw.settings.addresses import Bind
from relaygw.settings.provider import Provider, Timeouts
from relaygw.upstream.connection import OpenConnection, open_connection
from relaygw.upstream.credentials import Credentials
from relaygw.upstream.outgoing import (
    Ledger,
    OutgoingMail,
    RecipientReply,
    Transaction,
    chunks,
    needs_seven_bit,
    plan_transaction,
)
from relaygw.upstream.protocol import ConnectionLost, ContentEncoder, ReplyInvalid, WireFailure

NextMail = Callable[[], OutgoingMail | None]
"""Gives the mail that will be transacted next on the session, if one will."""

IsWanted = Callable[[], Awaitable[bool]]
"""Tells right before the final dot whether the mail is still to be sent."""

_SMALL_BYTES = 65536  # content up to this goes out in one write with its final dot
_QUIT_TIMEOUT_S = 5.0
_CHAIN_PATIENCE_S = 30.0  # for an answer to a chained envelope, which may have been dropped


async def open_session(
    provider: Provider,
    *,
    ehlo_name: str,
    credentials: Credentials | None = None,
    tls_context: ssl.SSLContext | None = None,
    own: tuple[Bind, ...] = (),
) -> UpstreamSession:
    """Return a session on a new connection, see open_connection; raises UpstreamError."""
    connection = await open_connection(
        provider, ehlo_name=ehlo_name, credentials=credentials, tls_context=tls_context, own=own
    )
    return UpstreamSession(connection, timeouts=provider.timeouts)


class _FailureByReply(WireFailure):
    def __init__(self, reply: SmtpReply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class _OutOfStep(_FailureByReply):
    """What came may answer something else: only a new connection tells what it means."""


class _ServiceClosing(_FailureByReply):
    """The provider answered 421: whatever is left of the session is void."""


@dataclass(slots=True)
class _Progress:
    mail: OutgoingMail
    plan: Transaction
    answers: list[RecipientReply | None] = field(init=False)  # None: nothing is known yet
    at_rcpt: dict[int, SmtpReply] = field(default_factory=dict)  # 2xx other than 250, by position
    ledger: Ledger = field(default_factory=Ledger)
    stage: Stage = Stage.MAIL
    is_begun: bool = False  # something was sent
    has_reply: bool = False  # and the provider answered at all
    is_mail_accepted: bool = False
    is_chained: bool = False  # its envelope went out behind the content before
    check_lease: Callable[[], bool] | None = None
    is_wanted: IsWanted | None = None
    next_mail: NextMail | None = None  # asks for what may follow in one group with the content

    def __post_init__(self) -> None:
        self.forget_replies()

    @property
    def is_decided(self) -> bool:
        return None not in self.answers

    @property
    def has_lost_lease(self) -> bool:
        return self.check_lease is not None and not self.check_lease()

    def forget_replies(self) -> None:
        self.has_reply = False
        self.at_rcpt.clear()
        self.answers = [self.plan.refused.get(n) for n in range(len(self.mail.recipients))]

    def note_at_rcpt(self, position: int, reply: SmtpReply) -> None:
        """Keep a reply to RCPT that is not the usual one: a refusal settles its recipient."""
        if reply.is_positive:
            self.at_rcpt[position] = reply
        elif self.answers[position] is None:
            self.answers[position] = RecipientReply(stage=Stage.RCPT, reply=reply)

    def settle(self, answer: RecipientReply) -> None:
        self.answers = [known or answer for known in self.answers]


class UpstreamSession:
    """An open, authenticated connection. One transaction at a time."""

    def __init__(self, connection: OpenConnection, *, timeouts: Timeouts) -> None:
        self.wire = connection.protocol
        self._offered = connection.offered
        self._timeouts = timeouts
        self._is_broken = False
        self._is_busy = False
        self.is_naming = False  # to whom mail goes: an envelope is being sent, or not answered yet
        self._needs_reset = False  # a transaction was begun and not ended: RSET comes first
        self._chained: _Progress | None = None  # its envelope went out behind the last content
        self.has_lost_step = False  # over a chained envelope: this provider does not take them
        self._mask = connection.mask
        self.relay = connection.relay
        self.opened_in_s = connection.opened_in_s
        self.round_trip_s = connection.round_trip_s
        self.chain_patience_s = min(timeouts.command, _CHAIN_PATIENCE_S)
        self.uses = 0  # transactions begun

    @property
    def is_usable(self) -> bool:
        """True when another transaction may be tried: open, in step, and none under way."""
        return (
            self.wire.is_open
            and not self._is_broken
            and not self._is_busy
            and self._chained is None
            and not self.wire.has_unread
        )

    @property
    def is_chained(self) -> bool:
        """True when the envelope of the next mail was sent already."""
        return self._chained is not None

    def expects(self, mail: OutgoingMail) -> bool:
        """True when it was the envelope of `mail` that was sent."""
        return self._chained is not None and self._chained.mail == mail

    async def transact(
        self,
        mail: OutgoingMail,
        *,
        check_lease: Callable[[], bool] | None = None,
        is_wanted: IsWanted | None = None,
        next_mail: NextMail | None = None,
        ledger: Ledger | None = None,
        may_begin: Callable[[], bool] | None = None,
    ) -> tuple[RecipientReply, ...]:
        """Send `mail` and return one reply per recipient; never raises for what a provider does.

        `check_lease` is asked before large content and right before each final dot; when it says
        no, the connection is closed without the dot; so it is when `is_wanted` does, which is for
        mail that may have been sent already. An error of the content's own source, or of these, and
        cancellation, break the session; `ledger` then says what is known. `next_mail` chains
        (decision 7): the envelope of what it returns goes out with the content; `is_chained` says
        so, and only that may come next. `may_begin` is asked right before anybody is named: when it
        says no, nothing is sent and nobody has a reply.
        """
        progress, self._chained = self._chained, None
        if progress is None:
            progress = _Progress(mail, await plan_transaction(mail, self._offered))
            if may_begin is not None and not may_begin():
                return ()
        assert progress.mail == mail, "another transaction was begun"
        progress.next_mail, progress.check_lease = next_mail, check_lease
        progress.is_wanted = is_wanted
        if ledger is not None:
            progress.ledger = ledger
        if not progress.is_decided:
            self.uses += 1
            self._is_busy = True
            try:
                await self._run(progress)
            except WireFailure as failure:
                self.abort()
                progress.settle(self._explain(failure, progress))
            except BaseException as error:
                self.abort()
                progress.settle(self._cut_short(error, progress))
                self._answers(progress)
                raise
            finally:
                self._is_busy = False
                self.is_naming = self._chained is not None
        return self._answers(progress)

    def _answers(self, progress: _Progress) -> tuple[RecipientReply, ...]:
        for position, reply in progress.at_rcpt.items():
            answer = progress.answers[position]
            progress.answers[position] = answer and replace(answer, at_rcpt=reply)
        known = [answer for answer in progress.answers if answer is not None]
        answers = tuple(known if self._mask is None else map(self._shown, known))
        progress.ledger.replies = answers
        return answers

    def _shown(self, answer: RecipientReply) -> RecipientReply:
        if self._mask is None:
            return answer  # else masked, to be logged and stored: some providers echo a key
        shown, at_rcpt = (
            self._mask.reply(reply) if reply is not None else None
            for reply in (answer.reply, answer.at_rcpt)
        )
        detail = self._mask(answer.detail)
        return replace(answer, reply=shown, said=answer.reply, at_rcpt=at_rcpt, detail=detail)

    async def close(self) -> None:
        """Say QUIT, wait a moment for the answer, and close."""
        try:
            if self.is_usable:
                with suppress(WireFailure):  # it is being closed anyway
                    self.wire.write(b"QUIT\r\n")
                    await self.wire.read_reply(timeout_s=_QUIT_TIMEOUT_S)
        finally:
            self.abort()
        await asyncio.wait({self.wire.closed}, timeout=_QUIT_TIMEOUT_S)

    def abort(self) -> None:
        """Close at once, without a word."""
        self._is_broken = True
        self._chained = None
        self.wire.abort()

    async def _run(self, progress: _Progress) -> None:
        if self.wire.has_unread and not progress.is_begun:
            raise ReplyInvalid("the provider sent data before a command")
        reply = await self._send_envelope(progress)
        self._needs_reset = progress.is_mail_accepted
        if reply is None:
            return
        if reply.code != 354:
            progress.settle(RecipientReply(stage=Stage.DATA, reply=reply))
        elif progress.is_decided:
            # RFC 2920 section 3.1: DATA may succeed although every recipient was refused; a single
            # dot ends it, and the refusals stand whatever the reply to it is
            self.wire.write(b".\r\n")
            end = await self.wire.read_reply(timeout_s=self._timeouts.final_reply)
            if end.code == 421:
                self.abort()
        else:
            progress.settle(await self._send_content(progress))
            self._needs_reset = False

    async def _send_envelope(self, progress: _Progress) -> SmtpReply | None:
        """Send MAIL, RCPT and DATA; return the reply to DATA, None when there was no DATA."""
        self.is_naming = True
        plan = progress.plan
        is_piped = self._offered.pipelining
        reset = b"RSET\r\n" if self._needs_reset and not progress.is_begun else b""
        if is_piped and not progress.is_begun:
            self.wire.write(reset + plan.envelope())
        progress.is_begun = True
        if reset:
            await self._ask(progress, Stage.MAIL, reset)
        reply = await self._ask(progress, Stage.MAIL, plan.mail_command)
        # a connection that took MAIL before says neither "what?" nor, in a chain, no to it now:
        # that may be the answer to something that was sent before it
        if (progress.is_chained and reply.is_permanent) or (self.uses > 1 and _is_lost(reply)):
            raise _OutOfStep(reply)
        progress.is_mail_accepted = reply.is_positive
        if not reply.is_positive:
            progress.settle(RecipientReply(stage=Stage.MAIL, reply=reply))
            if not is_piped:
                return None
        for position, command in plan.rcpt_commands.items():
            reply = await self._ask(progress, Stage.RCPT, command)
            if progress.is_chained and reply.code == 503:
                raise _OutOfStep(reply)
            if reply.code != 250:
                progress.note_at_rcpt(position, reply)
        self.is_naming = False
        if progress.is_decided and not is_piped:
            return None
        return await self._ask(progress, Stage.DATA, b"DATA\r\n")

    async def _ask(self, progress: _Progress, stage: Stage, command: bytes) -> SmtpReply:
        """Return the reply to `command`, which went out before in a group with PIPELINING."""
        progress.stage = stage
        if not self._offered.pipelining:
            if self.wire.has_unread:
                raise ReplyInvalid("the provider sent data before a command")
            self.wire.write(command)
        limit_s = self.chain_patience_s if progress.is_chained else self._timeouts.command
        reply = await self.wire.read_reply(timeout_s=limit_s)
        progress.has_reply = True
        if reply.code == 421:
            raise _ServiceClosing(reply)
        is_agreed = reply.code == 354 if stage is Stage.DATA else reply.is_positive
        if not (is_agreed or reply.is_temporary or reply.is_permanent):
            raise ReplyInvalid(f"{reply.code} is not a valid reply to {stage}")
        return reply

    async def _send_content(self, progress: _Progress) -> RecipientReply:
        if self.wire.has_unread:
            return await self._read_refusal()
        content, encoder = progress.plan.content, ContentEncoder(fold=progress.plan.fold)
        if isinstance(content, bytes) and len(content) <= _SMALL_BYTES:
            last = encoder.encode(content) + encoder.finish()
        else:
            if progress.has_lost_lease:
                return self._end_without_dot(progress)
            async for chunk in chunks(content):
                octets = encoder.encode(chunk)
                await self.wire.write_content(octets, timeout_s=self._timeouts.command)
                if self.wire.has_unread or not self.wire.is_open:
                    return await self._read_refusal()
            last = encoder.finish()
            # the dot must not wait behind content that a slow provider has not taken yet
            await self.wire.flush(timeout_s=self._timeouts.command)
        following = await self._begin_next(progress)
        if progress.is_wanted is not None and not await progress.is_wanted():
            progress.ledger.is_unwanted = True
            return self._end_without_dot(progress)
        if progress.has_lost_lease:
            return self._end_without_dot(progress)
        progress.stage = Stage.CONTENT
        progress.ledger.is_dot_sent = True
        self.wire.write(last + following)
        reply = await self.wire.read_reply(timeout_s=self._timeouts.final_reply)
        if reply.code == 421:
            raise _ServiceClosing(reply)
        if reply.code // 100 == 3:
            raise ReplyInvalid(f"{reply.code} is not a valid reply to {Stage.CONTENT}")
        reports = self._offered.dsn and progress.mail.may_report
        return RecipientReply(stage=Stage.CONTENT, reply=reply, is_passed_on=reports)

    def _end_without_dot(self, progress: _Progress) -> RecipientReply:
        """Close: content is awaited and there is no command to take DATA back."""
        self.abort()
        progress.ledger.is_fenced = True
        why = "sent already" if progress.ledger.is_unwanted else "lease lost"
        return RecipientReply(stage=Stage.LOCAL, detail=f"{why}, nothing sent")

    async def _begin_next(self, progress: _Progress) -> bytes:
        if progress.next_mail is None or not self._offered.pipelining:
            return b""
        try:
            mail = progress.next_mail()
            if mail is None or needs_seven_bit(mail, self._offered):
                return b""  # the dot does not wait for a conversion
            following = _Progress(mail, await plan_transaction(mail, self._offered))
        except Exception:  # of the mail that follows: it is met again when its own turn comes
            return b""
        if following.plan.refused:
            return b""
        following.is_begun = following.is_chained = self.is_naming = True
        self._chained = following
        return following.plan.envelope()

    async def _read_refusal(self) -> RecipientReply:
        """Return the reply that came before the content was sent, and give the session up."""
        reply = await self.wire.read_reply(timeout_s=self._timeouts.command)
        self.abort()
        if not (reply.is_temporary or reply.is_permanent):
            raise ReplyInvalid(f"{reply.code} came before the content was sent")
        return RecipientReply(stage=Stage.CONTENT, reply=reply)

    def _cut_short(self, error: BaseException, progress: _Progress) -> RecipientReply:
        """Return the outcome when something else than the provider ends a transaction."""
        if not progress.ledger.is_dot_sent:
            return RecipientReply(stage=Stage.LOCAL, detail="stopped, nothing sent")
        with suppress(WireFailure):
            reply = self.wire.reply_at_hand()
            if reply is not None and reply.code // 100 != 3:
                return RecipientReply(stage=progress.stage, reply=reply)
        why = "stopped" if isinstance(error, asyncio.CancelledError) else type(error).__name__
        detail = f"{why} before {self.relay} answered {progress.stage}"
        return RecipientReply(stage=progress.stage, detail=detail, in_doubt=True)

    def _explain(self, failure: WireFailure, progress: _Progress) -> RecipientReply:
        is_content_unsent = not progress.ledger.is_dot_sent
        is_begun_only = progress.is_chained and is_content_unsent
        # a late answer to the mail before shifts all that follow: they may be those of others
        is_shifted = self.uses > 1 and isinstance(failure, ReplyInvalid)
        if isinstance(failure, _ServiceClosing) and not is_begun_only:
            return RecipientReply(stage=progress.stage, reply=failure.reply)
        is_closed = isinstance(failure, ConnectionLost | _ServiceClosing)
        if is_begun_only:
            # what was answered to an envelope that did not come to its end counts for nothing; a
            # connection that was closed, or a sender that is refused, says nothing of chaining
            progress.forget_replies()
            if isinstance(failure, _OutOfStep):
                self.has_lost_step = _is_lost(failure.reply)
            elif not is_closed:
                self.has_lost_step = True
        elif is_shifted and is_content_unsent:
            progress.forget_replies()
        is_out_of_step = isinstance(failure, _OutOfStep)
        is_gone = is_out_of_step or is_closed or is_shifted
        happened = failure.summary.format(relay=self.relay)
        return RecipientReply(
            stage=progress.stage,
            detail=f"{happened} while sending {progress.stage} ({failure})",
            in_doubt=progress.ledger.is_dot_sent,
            stale_session=(
                self.uses > 1
                and (is_gone or progress.is_chained or not progress.is_begun)
                and not progress.ledger.is_dot_sent
                and (not progress.has_reply or is_out_of_step)
            ),
        )


def _is_lost(reply: SmtpReply) -> bool:
    """True for "what?" and "not now": the two sides of a connection count differently."""
    return 500 <= reply.code <= 503
