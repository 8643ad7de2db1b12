"""One SMTP session: what is known of its client, the command loop, and all commands but AUTH.

RFC 5321, 1870, 2034, 2920 (PIPELINING), 3207 (STARTTLS), 3461 (DSN), 6152, 6531. Refusals are
logged in Postfix's words, but for what may be a password: the argument of AUTH, and lines behind an
AUTH that was refused, which a client may send without waiting.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from aiosmtpd import smtp

from relaygw.errors import EndsReaders, IntakeFull, StoreFull, StoreUnavailable
from relaygw.inbound import login, replies
from relaygw.inbound.arguments import parse_mail, parse_rcpt
from relaygw.inbound.content import ContentReader, ReceivedContent, TooMuchData
from relaygw.inbound.intake import HeaderTooLong, Origin, TooManyHops
from relaygw.inbound.replies import MAX_COMMAND_BYTES, MAX_ERRORS, NOT_OFFERED, Refusal
from relaygw.mail.dsn_request import NO_REQUEST
from relaygw.mail.envelope import Source
from relaygw.observe.events import Rejected
from relaygw.observe.readings import Reader
from relaygw.policy.recipients import Fate
from relaygw.settings.addresses import MAX_REWRITTEN

if TYPE_CHECKING:
    from relaygw.inbound.connection import Connection
    from relaygw.inbound.intake import ResolvedRecipient

MAX_JUNK_COMMANDS = 100  # as Postfix's smtpd_junk_command_limit
RECIPIENT_OVERSHOOT = 1000  # beyond it every further recipient counts as an error

_HELO = re.compile(rb"[!-~]{1,255}")
_FOREIGN = frozenset({b"GET", b"POST", b"PUT", b"CONNECT"})
_JUNK = frozenset({b"NOOP", b"RSET", b"VRFY", b"HELO", b"EHLO", b"HELP"})
_NOT_AUTHORISED = frozenset({b"XCLIENT", b"XFORWARD"})


class Envelope(smtp.Envelope):
    """One MAIL transaction; `mail_from` is None until it begins."""

    def __init__(self) -> None:
        super().__init__()
        self.recipients: list[ResolvedRecipient] = []
        self.rcpt_commands = 0  # refused ones too
        self.taken_commands = 0  # of these; one may have become many recipients
        self.dsn = NO_REQUEST  # of MAIL


class Session(smtp.Session):
    """What is known of a client so far; `host_name` is what it said in HELO or EHLO."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection.loop)
        self.connection = connection
        self.listener = connection.listener
        self.junk_commands = 0
        self.failed_logins = 0
        self.may_hold_password = False  # the line at hand, from AUTH to the next real command
        self.has_told_of_source = False
        self._errors = 0
        self.log_in(None)

    @property
    def is_login_offered(self) -> bool:
        """True when the client could log in now: never where its password could be overheard."""
        is_private = self.connection.is_encrypted or self.connection.client.is_local
        return self.listener.authenticator is not None and is_private

    @property
    def is_starttls_offered(self) -> bool:
        """True when the client could turn to TLS now; never without a certificate."""
        certificate = None if self.connection.is_encrypted else self.listener.certificate
        return certificate is not None and certificate.context() is not None

    def log_in(self, user: login.Login | None) -> None:
        """Make this the session of `user`."""
        self.login = user
        user_name = user.name if user is not None else None
        self.mode = self.listener.intake.modes.of(self.listener.name, user_name)

    def forget(self) -> None:
        """Know nothing of the client any more: what it said before TLS may be forged."""
        self.host_name, self.extended_smtp = None, False
        self.connection.reset_envelope()
        self.log_in(None)

    async def serve(self) -> None:
        """Serve commands until either side ends the session; raises IncompleteReadError."""
        connection = self.connection
        while not connection.is_done:
            try:
                line = await connection.read_line()
            except asyncio.LimitOverrunError:
                self._refuse(b"", replies.LINE_TOO_LONG)
                return
            if not line.endswith(b"\r\n"):
                # closing is the only answer that leaves no doubt about where commands begin
                self.may_hold_password = self.may_hold_password or line[:4].upper() == b"AUTH"
                self._refuse(line, replies.BARE_LF)
                return
            await self._execute(line[:-2])
            is_idle = connection.envelope.mail_from is None and not connection.is_done
            if self.listener.is_stopping and is_idle:
                connection.say(replies.STOPPING)
                connection.is_done = True
            if connection.has_unsent:
                await connection.flush()

    async def _execute(self, line: bytes) -> None:
        verb, _, argument = line.partition(b" ")
        verb = verb.upper()
        try:
            self._check_line(line, verb)
            await _COMMANDS[verb](self, argument.strip(b" \t"))
        except Refusal as refusal:
            self._refuse(line, str(refusal))
        except asyncio.LimitOverrunError:
            self._refuse(b"", replies.AUTH_LINE_TOO_LONG)
            raise ConnectionResetError("endless line") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise
        except Exception as error:
            # our trouble is never the client's fault: 4xx, and no word of the reason
            self.listener.note(
                f"error: {type(error).__name__}: {error} in a session of {self.connection.peer}"
            )
            self.connection.reset_envelope()
            self.connection.say(replies.TROUBLE)

    def _check_line(self, line: bytes, verb: bytes) -> None:
        if verb[:4] == b"AUTH":
            self.may_hold_password = True
        elif verb in _COMMANDS:
            self.may_hold_password = False
        if verb in _FOREIGN or line.endswith((b"HTTP/1.0", b"HTTP/1.1")):
            self.connection.is_done = True
            raise Refusal(replies.NOT_SMTP.format(protocol="HTTP"))
        if len(line) > (login.MAX_AUTH_LINE_BYTES if verb == b"AUTH" else MAX_COMMAND_BYTES):
            raise Refusal(replies.LINE_TOO_LONG)
        if verb in _JUNK:
            self.junk_commands += 1
            if self.junk_commands > MAX_JUNK_COMMANDS:
                self.connection.is_done = True
                raise Refusal(replies.TOO_MANY_COMMANDS)
        if verb in NOT_OFFERED:
            # the chunk behind BDAT would be read as commands: whoever wrote it could send mail
            self.connection.is_done |= verb == b"BDAT"
            raise Refusal(replies.NOT_IMPLEMENTED)
        if verb in _NOT_AUTHORISED:
            raise Refusal(replies.NOT_AUTHORISED)
        if verb not in _COMMANDS:
            raise Refusal(replies.UNKNOWN_COMMAND if verb.isalnum() else replies.BAD_SYNTAX)

    def _refuse(self, line: bytes, reply: str) -> None:
        self._errors += 1
        if self._errors >= MAX_ERRORS and not self.connection.is_done:
            reply = replies.TOO_MANY_ERRORS
            self.connection.is_done = True
        self.connection.say(reply)
        verb = line[:4].decode("ascii", "replace").strip().upper()
        stage = verb if verb.isascii() and verb.isalpha() else "UNKNOWN"
        is_hidden = self.may_hold_password
        rejected = Rejected(
            stage="AUTH" if is_hidden else stage,
            peer=self.connection.peer,
            reply=reply,
            sender=self.connection.envelope.mail_from or "",
            protocol="ESMTP" if self.extended_smtp else "SMTP",
            helo=self.host_name or "",
            command="(hidden)" if is_hidden else line[:200].decode("utf-8", "backslashreplace"),
        )
        self.listener.log.write([rejected])


async def _greet(verb: str, session: Session, argument: bytes) -> None:
    if not _HELO.fullmatch(argument):
        raise Refusal(replies.BAD_ARGUMENT.format(usage=f"{verb} hostname"))
    session.host_name = argument.decode("ascii")
    session.extended_smtp = verb == "EHLO"
    session.connection.reset_envelope()  # RFC 5321 section 4.1.4
    if not session.extended_smtp:
        session.connection.say(f"250 {session.connection.hostname}")
        return
    limit = session.listener.settings.max_message_size
    starttls = "250-STARTTLS\r\n" if session.is_starttls_offered else ""
    auth = "250-AUTH PLAIN LOGIN\r\n" if session.is_login_offered else ""
    hostname, more = session.connection.hostname, f"{starttls}{auth}250-DSN\r\n"
    session.connection.say(replies.EXTENSIONS.format(hostname=hostname, limit=limit, more=more))


async def _starttls(session: Session, argument: bytes) -> None:
    connection, certificate = session.connection, session.listener.certificate
    if argument:
        raise Refusal(replies.BAD_ARGUMENT.format(usage="STARTTLS"))
    if connection.is_encrypted:
        raise Refusal(replies.TLS_ALREADY)
    if certificate is None:
        raise Refusal(replies.NOT_IMPLEMENTED)
    if connection.has_sent_ahead:
        connection.is_done = True  # commands for behind TLS, by whoever is in between
        raise Refusal(replies.UNSYNCHRONISED)
    context = certificate.context()
    if context is None:
        connection.say(replies.NO_TLS_NOW)
        return
    connection.say(replies.READY_FOR_TLS)
    await connection.start_tls(context)
    session.forget()


async def _say(reply: str, session: Session, _argument: bytes) -> None:
    session.connection.say(reply)


async def _rset(session: Session, _argument: bytes) -> None:
    session.connection.reset_envelope()
    session.connection.say(replies.OK)


async def _quit(session: Session, _argument: bytes) -> None:
    session.connection.say(replies.BYE)
    session.connection.is_done = True


async def _mail(session: Session, argument: bytes) -> None:
    connection, listener, login = session.connection, session.listener, session.login
    if not session.host_name:
        raise Refusal(replies.HELO_FIRST)
    if connection.envelope.mail_from is not None:
        raise Refusal(replies.NESTED_MAIL)
    if listener.settings.auth == "required" and login is None:
        needs_tls = not session.is_login_offered and session.is_starttls_offered
        raise Refusal(replies.TLS_REQUIRED if needs_tls else replies.LOGIN_REQUIRED)
    limit = listener.settings.max_message_size
    address, wanted = parse_mail(argument, limit_bytes=limit, has_dsn=True)
    sender = listener.intake.resolve_sender(address)
    if login is not None and not login.may_send_as(sender):
        raise Refusal(replies.SENDER_DENIED)
    if not listener.intake.has_space():
        connection.say(replies.NO_SPACE)
        return
    if listener.is_too_fast(connection.client, login.name if login else None):
        raise Refusal(replies.TOO_FAST.format(client=connection.client.address))
    listener.committer.expect(connection)
    connection.envelope.mail_from = sender
    connection.envelope.smtp_utf8 = wanted.smtputf8
    connection.envelope.dsn = wanted.dsn
    connection.say(replies.OK_SENDER)


async def _rcpt(session: Session, argument: bytes) -> None:
    connection, listener = session.connection, session.listener
    envelope = connection.envelope
    if envelope.mail_from is None:
        raise Refusal(replies.MAIL_FIRST)
    envelope.rcpt_commands += 1
    surplus = envelope.rcpt_commands - listener.settings.max_recipients
    if surplus > RECIPIENT_OVERSHOOT:
        raise Refusal(replies.TOO_MANY_RECIPIENTS)
    number, most = len(envelope.recipients), listener.settings.max_recipients
    if surplus > 0 or (number >= MAX_REWRITTEN and number >= most):
        connection.say(replies.TOO_MANY_RECIPIENTS)
        return
    if session.login is None and not connection.client.is_trusted:
        raise Refusal(replies.RELAY_DENIED)
    address, notify, orcpt = parse_rcpt(argument, smtputf8=envelope.smtp_utf8, has_dsn=True)
    resolved = listener.intake.resolve_recipients(address, session.mode)
    is_refused = resolved[0].decision.fate is Fate.REJECT
    if is_refused and all(recipient.decision.fate is Fate.REJECT for recipient in resolved):
        raise Refusal(replies.RECIPIENT_REFUSED)
    if notify or orcpt:
        resolved = [
            replace(recipient, dsn_notify=notify, dsn_orcpt=orcpt) for recipient in resolved
        ]
    envelope.recipients += resolved
    envelope.taken_commands += 1
    connection.say(replies.OK_RECIPIENT)


async def _data(session: Session, argument: bytes) -> None:
    connection, listener = session.connection, session.listener
    envelope = connection.envelope
    if argument:
        raise Refusal(replies.BAD_ARGUMENT.format(usage="DATA"))
    if envelope.mail_from is None:
        raise Refusal(replies.MAIL_FIRST)
    if not envelope.recipients:
        raise Refusal(replies.NO_VALID_RECIPIENTS)
    if connection.has_sent_ahead:
        connection.is_done = True  # content before 354: another protocol is being spoken
        raise Refusal(replies.UNSYNCHRONISED)
    limit = listener.settings.max_message_size
    intake = listener.intake
    reader = ContentReader(limit_bytes=limit, spool_directory=intake.state_dir, room=intake.room)
    try:
        await connection.receive(reader)
        # only now: a session that reads content is not idle when the front stops
        connection.reset_envelope()
        if reader.is_large:
            await listener.committer.work_aside(reader.work_up)
        else:
            reader.work_up()
        await _accept(session, envelope, reader.content)
    except TooMuchData:
        connection.is_done = True
        raise Refusal(replies.TOO_BIG.format(limit=limit)) from None
    finally:
        if connection.envelope is envelope:
            connection.reset_envelope()
        if reader.is_large:  # the end of a file may wait for the disk
            listener.committer.work_aside(reader.content.close)
        else:
            reader.content.close()


async def _accept(session: Session, envelope: Envelope, content: ReceivedContent) -> None:
    connection, listener = session.connection, session.listener
    if content.is_too_big:
        raise Refusal(replies.TOO_BIG.format(limit=listener.settings.max_message_size))
    if content.error is not None:
        listener.note(f"warning: spool file: {content.error}; answered 452")
        connection.say(replies.NO_SPACE)
        return
    try:
        if not listener.intake.has_space():  # others have come since MAIL
            raise StoreFull("the volume is nearly full")
        if content.is_spooled:
            async with listener.committer.large_turn:
                with_digest = listener.intake.takes_once
                await listener.committer.work_aside(partial(content.read_head, with_digest))
                queue_id = await _store(session, envelope, content)
        else:
            content.read_head()
            queue_id = await _store(session, envelope, content)
    except TooManyHops:
        raise Refusal(replies.TOO_MANY_HOPS) from None
    except HeaderTooLong:
        limit = listener.settings.max_header_size
        raise Refusal(replies.HEADER_TOO_LONG.format(limit=limit)) from None
    except EndsReaders as error:
        remedy = f"not accepted, and answered 554 to {connection.peer}; report it"
        listener.note(f"error: {error}; {remedy}")
        raise Refusal(replies.NOT_READABLE) from None
    except (StoreUnavailable, IntakeFull) as error:
        is_full = isinstance(error, (StoreFull, IntakeFull))
        reply = replies.NO_SPACE if is_full else replies.TROUBLE
        listener.note(f"warning: {error}; answered {reply[:3]} to {connection.peer}")
        connection.say(reply)
        return
    session.junk_commands = 0
    connection.extend_session()
    connection.say(replies.QUEUED + queue_id)


async def _store(session: Session, envelope: Envelope, content: ReceivedContent) -> str:
    """Return the queue id of the message once it is durable."""
    listener, client = session.listener, session.connection.client
    user = session.login.name if session.login is not None else None
    protocol = "SMTP"  # RFC 3848, RFC 6531
    if session.extended_smtp:
        protocol = f"ESMTP{'S' * session.connection.is_encrypted}{'A' * (user is not None)}"
    if envelope.smtp_utf8:
        protocol = f"UTF8{protocol.lstrip('E')}"
    origin = Origin(
        source=Source(
            client=client.address, helo=session.host_name, user=user, listener=listener.name
        ),
        client_key=client.key if user is None else user,
        protocol=protocol,
        smtputf8=envelope.smtp_utf8,
        mode=session.mode,
        dsn=envelope.dsn,
        is_new=True,
        refused_recipients=envelope.rcpt_commands - envelope.taken_commands,
    )
    name, readings = content.name, listener.readings
    read = partial(
        listener.intake.header_of, content, limit_bytes=listener.settings.max_header_size
    )
    header = None
    if content.has_long_header:
        aside = partial(readings.call, Reader.LARGE, name, read)
        header = await listener.committer.work_aside(aside)
    with readings.reading(Reader.SESSIONS, name):
        message, chunks = listener.intake.compose(
            sender=envelope.mail_from or "",
            recipients=envelope.recipients,
            content=content,
            header=header or read(),
            origin=origin,
        )
    if content.is_spooled:
        await listener.committer.add_chunks(message, chunks)
    if message.has_denied_source and not session.has_told_of_source:
        session.has_told_of_source = True
        listener.note(
            f"warning: {message.queue_id}: X-Relaygw-Source of {session.connection.peer} removed, "
            "not trusted; if it is one of your relaygw hosts, add it to trust_source of the "
            "listener"
        )
    return await listener.committer.submit(message)


_COMMANDS: dict[bytes, Callable[[Session, bytes], Awaitable[None]]] = {
    b"EHLO": partial(_greet, "EHLO"),
    b"HELO": partial(_greet, "HELO"),
    b"STARTTLS": _starttls,
    b"AUTH": login.auth,
    b"MAIL": _mail,
    b"RCPT": _rcpt,
    b"DATA": _data,
    b"RSET": _rset,
    b"NOOP": partial(_say, replies.OK),
    b"VRFY": partial(_say, replies.VRFY),
    b"HELP": partial(_say, replies.HELP),
    b"QUIT": _quit,
}
