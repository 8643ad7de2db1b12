"""One SMTP session of the front: the command loop and the commands.

RFC 5321, 1870 (SIZE), 2034, 2920 (PIPELINING), 6152, 6531.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from relaygw.errors import IntakeFull, InvalidAddress, StoreFull, StoreUnavailable
from relaygw.inbound import replies
from relaygw.inbound.connection import Connection, Front
from relaygw.inbound.data import ContentReader, ReceivedContent, TooMuchData
from relaygw.inbound.intake import Origin, ResolvedRecipient, TooManyHops
from relaygw.inbound.parameters import MailParameters, parse_mail_parameters, shown_name
from relaygw.mail.address import parse_path
from relaygw.mail.envelope import Source
from relaygw.observe.maillog import escape
from relaygw.policy.recipients import Fate

MAX_COMMAND_BYTES = 2048
MAX_ERRORS = 20  # as Postfix's smtpd_hard_error_limit
MAX_JUNK_COMMANDS = 100  # as Postfix's smtpd_junk_command_limit
RECIPIENT_OVERSHOOT = 1000  # beyond it every further recipient counts as an error

_HELO = re.compile(rb"[!-~]{1,255}")
_PATH_START = {b"MAIL": re.compile(rb"from:[ \t]*", re.I), b"RCPT": re.compile(rb"to:[ \t]*", re.I)}
_FOREIGN = {b"GET": "HTTP", b"POST": "HTTP", b"PUT": "HTTP", b"CONNECT": "HTTP"}
_JUNK = frozenset({b"NOOP", b"RSET", b"VRFY", b"HELO", b"EHLO", b"HELP"})
_NOT_IMPLEMENTED = frozenset({b"EXPN", b"TURN", b"ETRN", b"SAML", b"SEND", b"SOML", b"BDAT"})
_NOT_AUTHORISED = frozenset({b"XCLIENT", b"XFORWARD"})


class Refusal(Exception):
    """A command is answered with this reply and counts as an error of the client."""


@dataclass(slots=True)
class Transaction:
    """One MAIL transaction."""

    sender: str
    smtputf8: bool
    recipients: list[ResolvedRecipient] = field(default_factory=list)
    seen: int = 0  # RCPT commands, refused ones too


class FrontSession(Connection):
    """Serves one client connection."""

    def __init__(self, front: Front, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(front, loop)
        self._transaction: Transaction | None = None
        self._helo = ""
        self._protocol = "SMTP"
        self._errors = 0
        self._junk_commands = 0
        self._has_told_of_source = False

    @property
    def is_in_transaction(self) -> bool:
        """True from MAIL until the content has arrived."""
        return self._transaction is not None

    async def _handle_client(self) -> None:
        """Serve commands until either side ends the session."""
        try:
            if not self._greet():
                return
            while not self._is_done:
                self._is_waiting = True
                line = await self._read_command()
                self._is_waiting = False
                await self._serve(line)
                if self._front.is_stopping and self._transaction is None and not self._is_done:
                    self._write(replies.STOPPING)
                    self._is_done = True
                if self.transport is not None:
                    await self._writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client left; what was answered 250 is durable, the rest was not accepted
        finally:
            self._close()

    def _greet(self) -> bool:
        if self._front.is_stopping:
            self._write(replies.STOPPING)
        elif not self._is_within_limits:
            address = self._client.address if self._client else ""
            self._write(replies.TOO_MANY_CONNECTIONS.format(client=address))
            self._front.log.note("smtpd", f"too many connections from {self._peer}")
        else:
            self._write(f"220 {self.hostname} ESMTP relaygw")
            return True
        return False

    async def _read_command(self) -> bytes:
        """Return one command without its CRLF; ends the session if it cannot be one."""
        try:
            line: bytes = await self._reader.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            self._refuse(b"", replies.LINE_TOO_LONG)
            raise ConnectionResetError("endless command line") from None
        self._consumed_bytes += len(line)
        if not line.endswith(b"\r\n"):
            # closing is the only answer that leaves no doubt about where commands begin
            self._refuse(line, replies.BARE_LF)
            raise ConnectionResetError("bare LF")
        return line[:-2]

    async def _serve(self, line: bytes) -> None:
        verb, _, argument = line.partition(b" ")
        verb = verb.upper()
        try:
            self._check_line(line, verb)
            await _COMMANDS[verb](self, argument.strip(b" \t"))
        except Refusal as refusal:
            self._refuse(line, str(refusal))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise
        except Exception as error:
            # our trouble is never the client's fault: 4xx, and no word of the reason
            self._front.log.note(
                "smtpd", f"error: {type(error).__name__}: {error} in a session of {self._peer}"
            )
            self._transaction = None
            self._write(replies.TROUBLE)

    def _check_line(self, line: bytes, verb: bytes) -> None:
        if verb in _FOREIGN or line.endswith((b"HTTP/1.0", b"HTTP/1.1")):
            self._is_done = True
            raise Refusal(replies.NOT_SMTP.format(protocol="HTTP"))
        if len(line) > MAX_COMMAND_BYTES:
            raise Refusal(replies.LINE_TOO_LONG)
        if verb in _JUNK:
            self._junk_commands += 1
            if self._junk_commands > MAX_JUNK_COMMANDS:
                self._is_done = True
                raise Refusal(replies.TOO_MANY_COMMANDS)
        if verb in _NOT_IMPLEMENTED:
            # the chunk behind BDAT would be read as commands: whoever wrote it could send mail
            self._is_done = self._is_done or verb == b"BDAT"
            raise Refusal(replies.NOT_IMPLEMENTED)
        if verb in _NOT_AUTHORISED:
            raise Refusal(replies.NOT_AUTHORISED)
        if verb not in _COMMANDS:
            raise Refusal(replies.UNKNOWN_COMMAND if verb.isalnum() else replies.BAD_SYNTAX)

    def _refuse(self, line: bytes, reply: str) -> None:
        self._errors += 1
        if self._errors >= MAX_ERRORS and not self._is_done:
            reply = replies.TOO_MANY_ERRORS
            self._is_done = True
        self._write(reply)
        shown = escape(line[:200].decode("utf-8", "backslashreplace"))
        stage = escape(line[:4].decode("ascii", "replace")).upper()
        sender = escape(self._transaction.sender) if self._transaction else ""
        self._front.log.write(
            [
                (
                    "smtpd",
                    f"NOQUEUE: reject: {stage} from {self._peer}: {reply}; from=<{sender}> "
                    f"proto={self._protocol} helo=<{escape(self._helo)}> command={shown}",
                )
            ]
        )

    # --- commands ------------------------------------------------------------------------

    async def _ehlo(self, argument: bytes) -> None:
        self._greeted(argument, protocol="ESMTP", usage="EHLO hostname")
        limit = self._front.listener.max_message_size
        self._write(
            f"250-{self.hostname}\r\n250-PIPELINING\r\n250-SIZE {limit}\r\n"
            "250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250 SMTPUTF8"
        )

    async def _helo_command(self, argument: bytes) -> None:
        self._greeted(argument, protocol="SMTP", usage="HELO hostname")
        self._write(f"250 {self.hostname}")

    def _greeted(self, argument: bytes, *, protocol: str, usage: str) -> None:
        if not _HELO.fullmatch(argument):
            raise Refusal(replies.BAD_ARGUMENT.format(usage=usage))
        self._helo = argument.decode("ascii")
        self._protocol = protocol
        self._transaction = None  # RFC 5321 section 4.1.4: EHLO resets

    async def _mail(self, argument: bytes) -> None:
        if not self._helo:
            raise Refusal(replies.BAD_SEQUENCE.format(expected="send EHLO first"))
        if self._transaction is not None:
            raise Refusal(replies.BAD_SEQUENCE.format(expected="nested MAIL command"))
        address, rest = self._parse_path(b"MAIL", argument)
        parameters = self._parse_parameters(rest)
        if not address.isascii() and not parameters.smtputf8:
            raise Refusal(replies.BAD_ADDRESS.format(code=553, status="5.6.7"))
        if not self._front.intake.has_space():
            self._write(replies.NO_SPACE)
            return
        self._transaction = Transaction(
            self._front.intake.resolve_sender(address), parameters.smtputf8
        )
        self._write(replies.OK_SENDER)

    def _parse_parameters(self, rest: bytes) -> MailParameters:
        limit = self._front.listener.max_message_size
        parameters = parse_mail_parameters(rest)
        if parameters.problem is not None:
            raise Refusal(parameters.problem)
        if parameters.size_bytes > limit:
            raise Refusal(replies.TOO_BIG.format(limit=limit))
        return parameters

    def _parse_path(self, verb: bytes, argument: bytes) -> tuple[str, bytes]:
        start = _PATH_START[verb].match(argument)
        if start is None:
            usage = "MAIL FROM:<address>" if verb == b"MAIL" else "RCPT TO:<address>"
            raise Refusal(replies.BAD_ARGUMENT.format(usage=usage))
        # MAIL learns of SMTPUTF8 only behind the path and checks then
        smtputf8 = self._transaction is None or self._transaction.smtputf8
        try:
            address, rest = parse_path(argument[start.end() :], smtputf8=smtputf8)
        except InvalidAddress as error:
            status = error.status
            if verb == b"MAIL" and status == "5.1.3":
                status = "5.1.7"  # RFC 3463: that subject is the sender's
            raise Refusal(replies.BAD_ADDRESS.format(code=error.code, status=status)) from error
        if rest and not rest.startswith((b" ", b"\t")):
            raise Refusal(replies.BAD_ADDRESS.format(code=501, status="5.1.3"))
        return address, rest.strip()

    async def _rcpt(self, argument: bytes) -> None:
        transaction = self._transaction
        if transaction is None:
            raise Refusal(replies.BAD_SEQUENCE.format(expected="need MAIL command"))
        transaction.seen += 1
        if transaction.seen > self._front.listener.max_recipients:
            if transaction.seen > self._front.listener.max_recipients + RECIPIENT_OVERSHOOT:
                raise Refusal(replies.TOO_MANY_RECIPIENTS)
            self._write(replies.TOO_MANY_RECIPIENTS)
            return
        address, rest = self._parse_path(b"RCPT", argument)
        if not address:
            raise Refusal(replies.BAD_ADDRESS.format(code=501, status="5.1.3"))
        if rest:
            name = shown_name(rest.partition(b"=")[0])
            raise Refusal(replies.UNKNOWN_PARAMETER.format(name=name))
        if self._client is None or not self._client.is_trusted:
            raise Refusal(replies.RELAY_DENIED)
        resolved = self._front.intake.resolve_recipient(address)
        if resolved.decision.fate is Fate.REJECT:
            raise Refusal(replies.RECIPIENT_REFUSED)
        transaction.recipients.append(resolved)
        self._write(replies.OK_RECIPIENT)

    async def _data(self, argument: bytes) -> None:
        transaction = self._transaction
        if argument:
            raise Refusal(replies.BAD_ARGUMENT.format(usage="DATA"))
        if transaction is None:
            raise Refusal(replies.BAD_SEQUENCE.format(expected="need MAIL command"))
        if not transaction.recipients:
            raise Refusal(replies.NO_VALID_RECIPIENTS)
        if self._received_bytes > self._consumed_bytes:
            self._is_done = True  # content before 354: another protocol is being spoken
            raise Refusal(replies.UNSYNCHRONISED)
        reader = ContentReader(
            limit_bytes=self._front.listener.max_message_size,
            spool_directory=self._front.intake.state_dir,
        )
        try:
            await self._receive(reader)
            # only now: a session that reads content is not idle when the front stops
            self._transaction = None
            if reader.is_large:
                await self._front.committer.work_aside(reader.work_up)
            else:
                reader.work_up()
            self._consumed_bytes += reader.content.raw_bytes
            await self._accept(transaction, reader.content)
        except TooMuchData:
            self._is_done = True
            raise Refusal(
                replies.TOO_BIG.format(limit=self._front.listener.max_message_size)
            ) from None
        finally:
            self._transaction = None
            if reader.is_large:  # the end of a file may wait for the disk
                self._front.committer.work_aside(reader.content.close)
            else:
                reader.content.close()

    async def _accept(self, transaction: Transaction, content: ReceivedContent) -> None:
        """Answer the final dot: 250 once the message is durable, never before."""
        if content.is_too_big:
            raise Refusal(replies.TOO_BIG.format(limit=self._front.listener.max_message_size))
        if content.error is not None:
            self._front.log.note("smtpd", f"warning: spool file: {content.error}; answered 452")
            self._write(replies.NO_SPACE)
            return
        try:
            if content.is_spooled:
                async with self._front.large_message_turn:
                    await self._front.committer.work_aside(content.read_head)
                    queue_id = await self._store(transaction, content)
            else:
                content.read_head()
                queue_id = await self._store(transaction, content)
        except TooManyHops:
            raise Refusal(replies.TOO_MANY_HOPS) from None
        except (StoreFull, IntakeFull) as error:
            self._front.log.note("smtpd", f"warning: {error}; answered 452 to {self._peer}")
            self._write(replies.NO_SPACE)
            return
        except StoreUnavailable as error:
            self._front.log.note("smtpd", f"warning: {error}; answered 451 to {self._peer}")
            self._write(replies.TROUBLE)
            return
        self._junk_commands = 0
        self._write(f"250 2.0.0 Ok: queued as {queue_id}")

    async def _store(self, transaction: Transaction, content: ReceivedContent) -> str:
        """Return the queue id of the message once it is durable."""
        message, chunks = self._front.intake.compose(
            sender=transaction.sender,
            recipients=transaction.recipients,
            content=content,
            origin=self._origin(transaction),
        )
        if content.is_spooled:
            await self._front.committer.add_chunks(message.queue_id, chunks)
        if message.has_denied_source:
            self._tell_of_source(message.queue_id)
        await self._front.committer.submit(message)
        return message.queue_id

    def _tell_of_source(self, queue_id: str) -> None:
        """Say, once a connection, that a client is not believed about where mail came from."""
        if self._has_told_of_source:
            return
        self._has_told_of_source = True
        self._front.log.note(
            "smtpd",
            f"warning: {queue_id}: X-Relaygw-Source of {self._peer} removed, not believed; if it "
            "is a relaygw of yours, add it to trust_source of the listener",
        )

    def _origin(self, transaction: Transaction) -> Origin:
        client = self._client
        protocol = f"UTF8{self._protocol.lstrip('E')}" if transaction.smtputf8 else self._protocol
        return Origin(
            source=Source(
                client=client.address if client else None,
                helo=self._helo,
                listener=self._front.name,
            ),
            client_key=client.key if client else "",
            protocol=protocol,
            smtputf8=transaction.smtputf8,
        )

    async def _rset(self, argument: bytes) -> None:
        self._transaction = None
        self._write(replies.OK)

    async def _noop(self, argument: bytes) -> None:
        self._write(replies.OK)

    async def _vrfy(self, argument: bytes) -> None:
        self._write(replies.VRFY)

    async def _help(self, argument: bytes) -> None:
        self._write(replies.HELP)

    async def _quit(self, argument: bytes) -> None:
        self._write(replies.BYE)
        self._is_done = True


_COMMANDS: dict[bytes, Callable[[FrontSession, bytes], Awaitable[None]]] = {
    b"EHLO": FrontSession._ehlo,
    b"HELO": FrontSession._helo_command,
    b"MAIL": FrontSession._mail,
    b"RCPT": FrontSession._rcpt,
    b"DATA": FrontSession._data,
    b"RSET": FrontSession._rset,
    b"NOOP": FrontSession._noop,
    b"VRFY": FrontSession._vrfy,
    b"HELP": FrontSession._help,
    b"QUIT": FrontSession._quit,
}
