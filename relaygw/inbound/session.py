"""One SMTP session of the front: the command loop.

RFC 5321, 2034, 2920 (PIPELINING); the commands have files of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from relaygw.inbound import hello, login, replies, transaction
from relaygw.inbound.dialogue import Dialogue, Refusal

MAX_COMMAND_BYTES = 2048
MAX_JUNK_COMMANDS = 100  # as Postfix's smtpd_junk_command_limit

_FOREIGN = {b"GET": "HTTP", b"POST": "HTTP", b"PUT": "HTTP", b"CONNECT": "HTTP"}
_JUNK = frozenset({b"NOOP", b"RSET", b"VRFY", b"HELO", b"EHLO", b"HELP"})
_NOT_IMPLEMENTED = frozenset({b"EXPN", b"TURN", b"ETRN", b"SAML", b"SEND", b"SOML", b"BDAT"})
_NOT_AUTHORISED = frozenset({b"XCLIENT", b"XFORWARD"})


class FrontSession(Dialogue):
    """Serves one client connection."""

    async def _handle_client(self) -> None:
        """Serve commands until either side ends the session."""
        try:
            await self._prepared()
            if not self._greet():
                return
            while not self.is_done:
                await self._serve(await self._read_command())
                if self.front.is_stopping and self.transaction is None and not self.is_done:
                    self.say(replies.STOPPING)
                    self.is_done = True
                await self.flush()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client left; what was answered 250 is durable, the rest was not accepted
        finally:
            self.close()

    def _greet(self) -> bool:
        if self.front.is_stopping:
            self.say(replies.STOPPING)
        elif not self._is_within_limits:
            self.say(replies.TOO_MANY_CONNECTIONS.format(client=self.client.address))
            self.front.log.note("smtpd", f"too many connections from {self.peer}")
        else:
            self.say(f"220 {self.hostname} ESMTP relaygw")
            return True
        return False

    async def _read_command(self) -> bytes:
        """Return one command without its CRLF; ends the session if it cannot be one."""
        try:
            line = await self.read_line()
        except asyncio.LimitOverrunError:
            self.refuse(b"", replies.LINE_TOO_LONG)
            raise ConnectionResetError("endless command line") from None
        if not line.endswith(b"\r\n"):
            # closing is the only answer that leaves no doubt about where commands begin
            self.may_hold_password = self.may_hold_password or line[:4].upper() == b"AUTH"
            self.refuse(line, replies.BARE_LF)
            raise ConnectionResetError("bare LF")
        return line[:-2]

    async def _serve(self, line: bytes) -> None:
        verb, _, argument = line.partition(b" ")
        verb = verb.upper()
        try:
            self._check_line(line, verb)
            await _COMMANDS[verb](self, argument.strip(b" \t"))
        except Refusal as refusal:
            self.refuse(line, str(refusal))
        except asyncio.LimitOverrunError:
            self.refuse(b"", replies.AUTH_LINE_TOO_LONG)
            raise ConnectionResetError("endless line") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise
        except Exception as error:
            # our trouble is never the client's fault: 4xx, and no word of the reason
            self.front.log.note(
                "smtpd", f"error: {type(error).__name__}: {error} in a session of {self.peer}"
            )
            self.transaction = None
            self.say(replies.TROUBLE)

    def _check_line(self, line: bytes, verb: bytes) -> None:
        if verb[:4] == b"AUTH":
            self.may_hold_password = True
        elif verb in _COMMANDS:
            self.may_hold_password = False
        if verb in _FOREIGN or line.endswith((b"HTTP/1.0", b"HTTP/1.1")):
            self.is_done = True
            raise Refusal(replies.NOT_SMTP.format(protocol="HTTP"))
        if len(line) > (login.MAX_AUTH_LINE_BYTES if verb == b"AUTH" else MAX_COMMAND_BYTES):
            raise Refusal(replies.LINE_TOO_LONG)
        if verb in _JUNK:
            self.junk_commands += 1
            if self.junk_commands > MAX_JUNK_COMMANDS:
                self.is_done = True
                raise Refusal(replies.TOO_MANY_COMMANDS)
        if verb in _NOT_IMPLEMENTED:
            # the chunk behind BDAT would be read as commands: whoever wrote it could send mail
            self.is_done = self.is_done or verb == b"BDAT"
            raise Refusal(replies.NOT_IMPLEMENTED)
        if verb in _NOT_AUTHORISED:
            raise Refusal(replies.NOT_AUTHORISED)
        if verb not in _COMMANDS:
            raise Refusal(replies.UNKNOWN_COMMAND if verb.isalnum() else replies.BAD_SYNTAX)


async def _rset(session: Dialogue, argument: bytes) -> None:
    session.transaction = None
    session.say(replies.OK)


async def _noop(session: Dialogue, argument: bytes) -> None:
    session.say(replies.OK)


async def _vrfy(session: Dialogue, argument: bytes) -> None:
    session.say(replies.VRFY)


async def _help(session: Dialogue, argument: bytes) -> None:
    session.say(replies.HELP)


async def _quit(session: Dialogue, argument: bytes) -> None:
    session.say(replies.BYE)
    session.is_done = True


_COMMANDS: dict[bytes, Callable[[Dialogue, bytes], Awaitable[None]]] = {
    b"EHLO": hello.ehlo,
    b"HELO": hello.helo,
    b"STARTTLS": hello.starttls,
    b"AUTH": login.auth,
    b"MAIL": transaction.mail,
    b"RCPT": transaction.rcpt,
    b"DATA": transaction.data,
    b"RSET": _rset,
    b"NOOP": _noop,
    b"VRFY": _vrfy,
    b"HELP": _help,
    b"QUIT": _quit,
}
