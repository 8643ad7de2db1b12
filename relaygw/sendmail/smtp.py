"""-bs: SMTP on stdin and stdout, as Symfony Mailer and SwiftMailer speak it.

Answers as the front does, and each message is in the maildrop before its 250. What the front
decides with its settings (who may receive, the size that a provider takes) it decides when it
takes the message over.

A whole session may be piped in at once, with lines that end with LF alone, as with Postfix: there
is no other protocol on a pipe to be smuggled into. Who pipes reads no replies, so the exit code is
not 0, other than Postfix's, where a message was not taken.
"""

from __future__ import annotations

import posix

from relaygw.inbound import replies
from relaygw.inbound.replies import MAX_COMMAND_BYTES, MAX_ERRORS, NOT_OFFERED, Refusal
from relaygw.mail.drop import MAX_CONTENT_BYTES, MAX_HEADER_BYTES
from relaygw.sendmail.arguments import EX_NOINPUT, EX_TEMPFAIL, EX_UNAVAILABLE, Failure, warn
from relaygw.sendmail.content import Message, compose_from
from relaygw.sendmail.spool import SpoolFailure, leave, release_signals, write_all

MAX_RECIPIENTS = 1000
SHOWN_ID_DIGITS = 20  # how much of a drop id is shown as the id under which a message was queued

_READ_BYTES = 256 * 1024
_CUT_SHORT = "the client left before the end"
_OF_MAIL = frozenset({b"MAIL", b"RCPT", b"DATA"})
_PLAIN = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-."


def serve() -> int:
    """Serve the client until it quits or leaves; return the exit code."""
    session = _Session()
    try:
        session.run()
    except (EOFError, BrokenPipeError) as end:
        # what was answered 250 is on disk, the rest was not accepted
        is_deaf = isinstance(end, BrokenPipeError) and session.verb != b"QUIT"
        if is_deaf or session.verb == b"DATA":
            session.refused_with = _CUT_SHORT
    if not session.refused_with:
        return 0
    warn(f"not all mail of the session was taken: {session.refused_with}")
    return EX_UNAVAILABLE if session.refused_with[0] == "5" else EX_TEMPFAIL


class _Session:
    def __init__(self) -> None:
        self._hostname = posix.uname().nodename
        self.verb = b""  # what is being served
        self.refused_with = ""  # what was said last of mail that was not taken
        self._received = bytearray()
        self._line_end = b""  # as the first line has it
        self._is_done = False
        self._errors = 0
        self._is_greeted = False
        self._smtputf8 = False
        self._sender: bytes | None = None
        self._recipients: list[bytes] = []

    def run(self) -> None:
        self._reply(f"220 {self._hostname} ESMTP relaygw")
        while not self._is_done:
            line = self._read_command()
            try:
                self._serve(line)
            except Refusal as refusal:
                self._errors += 1
                is_last = self._errors >= MAX_ERRORS and not self._is_done
                self._is_done |= is_last
                self._reply(replies.TOO_MANY_ERRORS if is_last else str(refusal))
            self.verb = b""

    def _reply(self, text: str) -> None:
        if text[0] in "45" and (self.verb in _OF_MAIL or self._is_done):
            self.refused_with = text
        write_all(1, f"{text}\r\n".encode())

    def _receive(self) -> None:
        try:
            piece = posix.read(0, _READ_BYTES)
        except ConnectionError:
            piece = b""  # it left
        except OSError as error:
            raise Failure(EX_NOINPUT, f"cannot read from stdin: {error.strerror}") from error
        if not piece:
            raise EOFError
        self._received += piece

    def _read_command(self) -> bytes:
        while (end := self._received.find(b"\n")) < 0:
            if len(self._received) > MAX_COMMAND_BYTES:
                self._is_done = True
                self._reply(replies.LINE_TOO_LONG)
                raise EOFError
            self._receive()
        line = bytes(self._received[: end + 1])
        del self._received[: end + 1]
        line_end = b"\r\n" if line.endswith(b"\r\n") else b"\n"
        self._line_end = self._line_end or line_end
        if len(line_end) < len(self._line_end):
            # ending is the only answer that leaves no doubt about where commands begin
            self._is_done = True
            self._reply(replies.BARE_LF)
            raise EOFError
        return line.removesuffix(line_end)

    def _serve(self, line: bytes) -> None:
        verb, _, argument = line.partition(b" ")
        self.verb = verb = verb.upper()
        argument = argument.strip(b" \t")
        if len(line) > MAX_COMMAND_BYTES:
            raise Refusal(replies.LINE_TOO_LONG)
        serve = _COMMANDS.get(verb)
        if serve is not None:
            serve(self, argument)
        elif verb in _SIMPLE_REPLIES:
            self._reply(_SIMPLE_REPLIES[verb])
        elif verb in NOT_OFFERED:
            # the chunk behind BDAT would be read as commands
            self._is_done = verb == b"BDAT"
            raise Refusal(replies.NOT_IMPLEMENTED)
        else:
            raise Refusal(replies.UNKNOWN_COMMAND if verb.isalnum() else replies.BAD_SYNTAX)

    def _rset(self, _argument: bytes) -> None:
        self._reset()
        self._reply(replies.OK)

    def _quit(self, _argument: bytes) -> None:
        self._reply(replies.BYE)
        self._is_done = True

    def _reset(self) -> None:
        self._sender = None
        self._smtputf8 = False
        self._recipients = []

    def _helo(self, argument: bytes) -> None:
        self._greeted(argument, "HELO hostname")
        self._reply(f"250 {self._hostname}")

    def _ehlo(self, argument: bytes) -> None:
        self._greeted(argument, "EHLO hostname")
        limit = MAX_CONTENT_BYTES
        self._reply(replies.EXTENSIONS.format(hostname=self._hostname, limit=limit, more=""))

    def _greeted(self, argument: bytes, usage: str) -> None:
        is_word = argument.isascii() and argument.decode("ascii", "replace").isprintable()
        if not argument or not is_word or b" " in argument or len(argument) > 255:
            raise Refusal(replies.BAD_ARGUMENT.format(usage=usage))
        self._reset()
        self._is_greeted = True

    def _mail(self, argument: bytes) -> None:
        if not self._is_greeted:
            raise Refusal(replies.HELO_FIRST)
        if self._sender is not None:
            raise Refusal(replies.NESTED_MAIL)
        path, smtputf8 = _plain_path(b"from:", argument), False
        if path is None or path[1]:
            from relaygw.inbound import arguments

            if path is None:
                address, wanted = arguments.parse_mail(argument, limit_bytes=MAX_CONTENT_BYTES)
                path = address.encode(), b""
            else:
                wanted = arguments.parse_parameters(path[1], limit_bytes=MAX_CONTENT_BYTES)
            smtputf8 = wanted.smtputf8
        self._sender, self._smtputf8 = path[0], smtputf8
        self._reply(replies.OK_SENDER)

    def _rcpt(self, argument: bytes) -> None:
        if self._sender is None:
            raise Refusal(replies.MAIL_FIRST)
        if len(self._recipients) >= MAX_RECIPIENTS:
            self._reply(replies.TOO_MANY_RECIPIENTS)
            return
        recipient = _plain_path(b"to:", argument)
        if recipient is None or recipient[1]:
            from relaygw.inbound.arguments import parse_rcpt

            recipient = parse_rcpt(argument, smtputf8=self._smtputf8)[0].encode(), b""
        self._recipients.append(recipient[0])
        self._reply(replies.OK_RECIPIENT)

    def _data(self, argument: bytes) -> None:
        if argument:
            raise Refusal(replies.BAD_ARGUMENT.format(usage="DATA"))
        if self._sender is None or not self._recipients:
            self._is_done = bool(self._received)  # content, which must not be read as commands
            is_begun = self._sender is not None
            raise Refusal(replies.NO_VALID_RECIPIENTS if is_begun else replies.MAIL_FIRST)
        self._reply(replies.START_DATA)
        content = self._read_content()
        sender, recipients = self._sender, self._recipients
        self._reset()
        if content is None:
            raise Refusal(replies.TOO_BIG.format(limit=MAX_CONTENT_BYTES))
        self._reply(_accept(sender, recipients, content))
        release_signals()

    def _read_content(self) -> bytes | None:
        """Return the content up to the line of a dot alone, unstuffed; None if it is too big.

        Lines end as the first did: a client that ends its own with CRLF passes text of strangers
        on, in which LF.LF must end nothing.
        """
        line_end = self._line_end
        end_of_data = line_end + b"." + line_end
        # the line before the content is that of DATA, so a dot in the first line ends it, too
        self._received[:0] = line_end
        is_too_big = False
        start = 0
        while (end := self._received.find(end_of_data, start)) < 0:
            if len(self._received) > MAX_CONTENT_BYTES:
                is_too_big = True
                del self._received[:-4]
            start = max(len(self._received) - 4, 0)
            self._receive()
        content = bytes(memoryview(self._received)[: end + len(line_end)])
        del self._received[: end + len(end_of_data)]
        if is_too_big or len(content) > MAX_CONTENT_BYTES:
            return None
        return content.replace(line_end + b".", line_end)[len(line_end) :]


def _accept(sender: bytes, recipients: list[bytes], content: bytes) -> str:
    """Return the reply to the final dot; the message is on disk if that is 250."""
    try:
        message = Message(content)
    except Failure as failure:
        warn(str(failure))
        return replies.HEADER_TOO_LONG.format(limit=MAX_HEADER_BYTES)
    added = b""
    if not message.has_field(b"from"):
        added = compose_from(sender, None, message.line_end)
    lines: list[tuple[bytes, bytes | None]] = [(b"from", sender)]
    lines += [(b"to", address) for address in dict.fromkeys(recipients)]
    try:
        drop_id = leave(lines, message.parts(added))
    except SpoolFailure as failure:
        warn(str(failure))
        return replies.NO_SPACE if failure.is_full else replies.TROUBLE
    except Failure as failure:
        warn(str(failure))
        return replies.TOO_MANY_RECIPIENTS
    return replies.QUEUED + drop_id[:SHOWN_ID_DIGITS].upper()


def _plain_path(keyword: bytes, argument: bytes) -> tuple[bytes, bytes] | None:
    """Return the address in a path of the usual shape, `<local@domain>`, and what follows.

    The front's parser, which reads all others, loads longer than all of this program.
    """
    address, bracket, rest = argument[len(keyword) :].lstrip(b" \t").partition(b">")
    local, _, domain = address[1:].partition(b"@")
    words = [*local.split(b"."), *domain.split(b".")]
    is_odd = b"".join(words).translate(None, _PLAIN) or any(
        not 0 < len(word) <= 63 or word[:1] == b"-" or word[-1:] == b"-" for word in words
    )
    is_path = address[:1] == b"<" and bracket and argument[: len(keyword)].lower() == keyword
    is_short = len(address) <= 320 and len(domain) <= 255
    if is_odd or not is_path or not is_short or (rest and rest[:1] not in b" \t"):
        return None
    return address[1:], rest.strip()


_COMMANDS = {
    b"HELO": _Session._helo,
    b"EHLO": _Session._ehlo,
    b"MAIL": _Session._mail,
    b"RCPT": _Session._rcpt,
    b"DATA": _Session._data,
    b"RSET": _Session._rset,
    b"QUIT": _Session._quit,
}
_SIMPLE_REPLIES = {b"NOOP": replies.OK, b"VRFY": replies.VRFY, b"HELP": replies.HELP}
