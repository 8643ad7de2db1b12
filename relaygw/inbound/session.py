"""One SMTP session: what is known of its client, the command loop, EHLO, HELO, STARTTLS.

RFC 5321, 2034, 2920 (PIPELINING), 3207 (STARTTLS); the other commands have files of their own.
Refusals are logged in Postfix's words. What may be a password is not: neither the argument of
AUTH, nor lines behind an AUTH that was refused, which a client may send without waiting.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from aiosmtpd import smtp

from relaygw.inbound import login, replies, transaction
from relaygw.inbound.replies import Refusal
from relaygw.observe.events import Rejected
from relaygw.policy.admission import may_log_in
from relaygw.settings.mode import Mode

if TYPE_CHECKING:
    from relaygw.inbound.connection import Connection
    from relaygw.inbound.intake import ResolvedRecipient

MAX_COMMAND_BYTES = 2048
MAX_ERRORS = 20  # as Postfix's smtpd_hard_error_limit
MAX_JUNK_COMMANDS = 100  # as Postfix's smtpd_junk_command_limit

_HELO = re.compile(rb"[!-~]{1,255}")
_FOREIGN = {b"GET": "HTTP", b"POST": "HTTP", b"PUT": "HTTP", b"CONNECT": "HTTP"}
_JUNK = frozenset({b"NOOP", b"RSET", b"VRFY", b"HELO", b"EHLO", b"HELP"})
_NOT_IMPLEMENTED = frozenset({b"EXPN", b"TURN", b"ETRN", b"SAML", b"SEND", b"SOML", b"BDAT"})
_NOT_AUTHORISED = frozenset({b"XCLIENT", b"XFORWARD"})


class Envelope(smtp.Envelope):
    """One MAIL transaction; `mail_from` is None until it begins."""

    def __init__(self) -> None:
        super().__init__()
        self.recipients: list[ResolvedRecipient] = []
        self.rcpt_commands = 0  # refused ones too


class Session(smtp.Session):
    """What is known of a client so far; `host_name` is what it said in HELO or EHLO."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection.loop)
        self.connection = connection
        self.listener = connection.listener
        self.login: login.Login | None = None
        self.junk_commands = 0
        self.failed_logins = 0
        self.may_hold_password = False  # the line at hand, from AUTH to the next real command
        self.has_told_of_source = False
        self._errors = 0
        self._mode: Mode | None = None

    @property
    def mode(self) -> Mode:
        """The mode that holds for this listener and user."""
        if self._mode is None:
            user = self.login.name if self.login is not None else None
            self._mode = self.listener.intake.modes.of(self.listener.name, user)
        return self._mode

    @property
    def transfer_protocol(self) -> str:
        """The `with` clause of a Received field (RFC 3848, RFC 6531)."""
        name = "SMTP"
        if self.extended_smtp:
            is_encrypted, has_login = self.connection.is_encrypted, self.login is not None
            name = f"ESMTP{'S' if is_encrypted else ''}{'A' if has_login else ''}"
        return f"UTF8{name.lstrip('E')}" if self.connection.envelope.smtp_utf8 else name

    @property
    def is_login_offered(self) -> bool:
        """True when the client could log in now: never where its password could be overheard."""
        return self.listener.authenticator is not None and may_log_in(
            is_local=self.connection.client.is_local, is_encrypted=self.connection.is_encrypted
        )

    @property
    def is_starttls_offered(self) -> bool:
        """True when the client could turn to TLS now; never without a certificate."""
        certificate = self.listener.certificate
        return (
            certificate is not None
            and not self.connection.is_encrypted
            and certificate.context() is not None
        )

    def log_in(self, user: login.Login | None) -> None:
        """From now on this is `user`'s session."""
        self.login = user
        self._mode = None

    def forget(self) -> None:
        """Know nothing of the client any more: what it said before TLS may be forged."""
        self.host_name, self.extended_smtp = None, False
        self.connection.reset_envelope()
        self.log_in(None)

    async def serve(self) -> None:
        """Serve commands until either side ends the session. Raises IncompleteReadError."""
        connection = self.connection
        while not connection.is_done:
            await self._execute(await self._read_command())
            is_idle = connection.envelope.mail_from is None and not connection.is_done
            if self.listener.is_stopping and is_idle:
                connection.say(replies.STOPPING)
                connection.is_done = True
            if connection.has_unsent:
                await connection.flush()

    async def _read_command(self) -> bytes:
        """Return one command without its CRLF; ends the session if it cannot be one."""
        try:
            line = await self.connection.read_line()
        except asyncio.LimitOverrunError:
            self._refuse(b"", replies.LINE_TOO_LONG)
            raise ConnectionResetError("endless command line") from None
        if not line.endswith(b"\r\n"):
            # closing is the only answer that leaves no doubt about where commands begin
            self.may_hold_password = self.may_hold_password or line[:4].upper() == b"AUTH"
            self._refuse(line, replies.BARE_LF)
            raise ConnectionResetError("bare LF")
        return line[:-2]

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
        if verb in _NOT_IMPLEMENTED:
            # the chunk behind BDAT would be read as commands: whoever wrote it could send mail
            self.connection.is_done |= verb == b"BDAT"
            raise Refusal(replies.NOT_IMPLEMENTED)
        if verb in _NOT_AUTHORISED:
            raise Refusal(replies.NOT_AUTHORISED)
        if verb not in _COMMANDS:
            raise Refusal(replies.UNKNOWN_COMMAND if verb.isalnum() else replies.BAD_SYNTAX)

    def _refuse(self, line: bytes, reply: str) -> None:
        """Answer with `reply`, count an error and write a line of the log."""
        self._errors += 1
        if self._errors >= MAX_ERRORS and not self.connection.is_done:
            reply = replies.TOO_MANY_ERRORS
            self.connection.is_done = True
        self.connection.say(reply)
        is_hidden = self.may_hold_password
        rejected = Rejected(
            stage="AUTH" if is_hidden else _stage(line),
            peer=self.connection.peer,
            reply=reply,
            sender=self.connection.envelope.mail_from or "",
            protocol="ESMTP" if self.extended_smtp else "SMTP",
            helo=self.host_name or "",
            command="(hidden)" if is_hidden else line[:200].decode("utf-8", "backslashreplace"),
        )
        self.listener.log.write([rejected])


def _stage(line: bytes) -> str:
    """Return the verb of a command for the log, as far as it has one."""
    verb = line[:4].decode("ascii", "replace").strip().upper()
    return verb if verb.isascii() and verb.isalpha() else "UNKNOWN"


async def _ehlo(session: Session, argument: bytes) -> None:
    """Greet, and say what is possible now."""
    _take_name(session, argument, is_extended=True)
    limit = session.listener.settings.max_message_size
    starttls = "250-STARTTLS\r\n" if session.is_starttls_offered else ""
    auth = "250-AUTH PLAIN LOGIN\r\n" if session.is_login_offered else ""
    session.connection.say(
        f"250-{session.connection.hostname}\r\n250-PIPELINING\r\n250-SIZE {limit}\r\n"
        f"{starttls}{auth}250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250 SMTPUTF8"
    )


async def _helo(session: Session, argument: bytes) -> None:
    _take_name(session, argument, is_extended=False)
    session.connection.say(f"250 {session.connection.hostname}")


def _take_name(session: Session, argument: bytes, *, is_extended: bool) -> None:
    if not _HELO.fullmatch(argument):
        usage = "EHLO hostname" if is_extended else "HELO hostname"
        raise Refusal(replies.BAD_ARGUMENT.format(usage=usage))
    session.host_name = argument.decode("ascii")
    session.extended_smtp = is_extended
    session.connection.reset_envelope()  # RFC 5321 section 4.1.4


async def _starttls(session: Session, argument: bytes) -> None:
    """Turn to TLS; what was said before does not count any more."""
    connection, certificate = session.connection, session.listener.certificate
    if argument:
        raise Refusal(replies.BAD_ARGUMENT.format(usage="STARTTLS"))
    if connection.is_encrypted:
        raise Refusal(replies.BAD_SEQUENCE.format(expected="TLS is active already"))
    if certificate is None:
        raise Refusal(replies.NOT_IMPLEMENTED)
    if connection.has_sent_ahead:
        connection.is_done = True  # commands for the time behind TLS, by whoever is in between
        raise Refusal(replies.UNSYNCHRONISED)
    context = certificate.context()
    if context is None:
        connection.say(replies.NO_TLS_NOW)
        return
    connection.say(replies.READY_FOR_TLS)
    await connection.start_tls(context)
    session.forget()


async def _rset(session: Session, _argument: bytes) -> None:
    session.connection.reset_envelope()
    session.connection.say(replies.OK)


async def _quit(session: Session, _argument: bytes) -> None:
    session.connection.say(replies.BYE)
    session.connection.is_done = True


async def _say(reply: str, session: Session, _argument: bytes) -> None:
    session.connection.say(reply)


_COMMANDS: dict[bytes, Callable[[Session, bytes], Awaitable[None]]] = {
    b"EHLO": _ehlo,
    b"HELO": _helo,
    b"STARTTLS": _starttls,
    b"AUTH": login.auth,
    b"MAIL": transaction.mail,
    b"RCPT": transaction.rcpt,
    b"DATA": transaction.data,
    b"RSET": _rset,
    b"NOOP": partial(_say, replies.OK),
    b"VRFY": partial(_say, replies.VRFY),
    b"HELP": partial(_say, replies.HELP),
    b"QUIT": _quit,
}
