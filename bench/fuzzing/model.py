"""The oracle: what each reply may be, and what must be stored, by the bytes that a client sent.

It reads them once more, in the simplest way there is, and takes the state from the replies that
came: a 250 to MAIL begins a transaction. It knows nothing of the product but its promises.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import NamedTuple

from bench.fuzzing.bodies import END
from bench.fuzzing.profiles import LIMIT_BYTES, MAX_RECIPIENTS, PASSWORD, USER
from bench.fuzzing.script import Script
from bench.fuzzing.words import JUNK, Label, label_of

MAX_LINE_BYTES = 128 * 1024  # without an end of it
_MAX_ANSWER_BYTES = 12_288  # to a challenge of AUTH
_MAX_ERRORS = 20
_MAX_LOGINS = 5
_MAX_JUNK = 100
_MAX_HOPS = 50
_ANY_ERROR = tuple(range(500, 560))
_REPLY = re.compile(rb"(?:[2-5][0-9]{2}-[ -~]*\r\n)*([2-5][0-9]{2}) [ -~]*\r\n")
_BARE_END = re.compile(rb"\r\n|\r|\n")


class Reply(NamedTuple):
    """What the front wrote, when so many bytes of the client had come."""

    data: bytes
    at_byte: int

    @property
    def code(self) -> int:
        """Its code, that of the last line; 0 for what is no reply."""
        match = _REPLY.fullmatch(self.data)
        return int(match[1]) if match else 0


class Meant(NamedTuple):
    """A message as its client meant it."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    queue_id: str  # that it was told, "" when it heard nothing


class Broken(Exception):
    """A rule was broken."""


class _Over(Exception):
    """No more replies come, and none has to."""


class Model:
    """Judges one session: `judge` raises Broken; then `meant` is what has to be stored."""

    def __init__(
        self, script: Script, sent: bytes, replies: list[Reply], *, is_ended: bool, is_gone: bool
    ) -> None:
        self._script, self._sent, self._replies = script, sent, replies
        self._is_ended, self._is_gone = is_ended, is_gone
        self._profile = script.profile
        self._at = 0  # in what was sent
        self._said = 0  # replies that are explained
        self.is_closed = False  # the front has to have hung up
        self.meant: list[Meant] = []
        self.maybe: Meant | None = None  # its client was gone before it heard of it
        self._errors = self._junk = self._failed_logins = 0
        self._has_name = self._is_extended = self._has_login = self._is_utf8 = False
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._rcpts = 0
        self._challenge, self._name = "", b""

    def judge(self) -> None:
        """Explain every reply, and find each that has to be there."""
        try:
            self._begin()
            while not self.is_closed:
                self._next_line()
        except _Over:
            pass
        if self._said < len(self._replies):
            raise Broken(f"a reply to nothing: {self._replies[self._said].data!r}")

    # --- replies

    def _take(self, expected: tuple[int, ...], what: bytes | str, *, closes: bool = False) -> Reply:
        """Return the next reply, which must be one of the expected."""
        if self._said == len(self._replies):
            if self._is_gone:
                raise _Over
            raise Broken(f"no reply to {_shown(what)}")
        reply = self._replies[self._said]
        self._said += 1
        code = reply.code
        if not code:
            raise Broken(f"what is no reply: {reply.data!r}")
        if self._script.is_silent and reply.data.startswith(b"421 4.4.2"):
            self.is_closed = True
            raise _Over
        if reply.at_byte < self._at:
            raise Broken(f"a reply before the end of {_shown(what)}: {reply.data!r}")
        is_last = self._errors >= _MAX_ERRORS - 1 and max(expected) >= 500
        if is_last and code == 421:
            self.is_closed = True
        elif code not in expected or (is_last and code >= 500 and not closes):
            raise Broken(f"{reply.data!r} to {_shown(what)}; right is {_codes(expected)}")
        self._errors += code >= 500
        self.is_closed |= closes
        return reply

    def _begin(self) -> None:
        script = self._script
        if script.header:
            if not script.is_served or len(self._sent) < len(script.header):
                self.is_closed = self._is_ended or not script.is_served
                raise _Over
            self._at = len(script.header)
        self._take((220,), "the connection")
        if self._sent[self._at : self._at + 1] == b"\x16":  # TLS
            self.is_closed = True

    # --- lines

    def _next_line(self) -> None:
        start, end = self._at, self._sent.find(b"\n", self._at)
        is_endless = (end if end >= 0 else len(self._sent)) - start > MAX_LINE_BYTES
        if is_endless:
            self._take((500,), "an endless line", closes=True)
            return
        if end < 0:
            self._wait()
        self._at = end + 1
        line = self._sent[start : self._at]
        if not line.endswith(b"\r\n"):
            self._take((501,), line, closes=True)
        elif self._challenge:
            self._answer(line[:-2])
        else:
            self._command(line[:-2])

    def _wait(self) -> None:
        """The client says nothing more for now: so does the front."""
        if self._script.is_silent and self._said < len(self._replies):
            self._at = 0
            self._take((421,), "silence")
        self.is_closed = self._is_ended
        raise _Over

    def _command(self, line: bytes) -> None:
        label = label_of(line, self._script.labels)
        verb = line[:4].upper().decode("ascii", "replace")
        if line.partition(b" ")[0].upper() == b"AUTH":
            self._begin_login(line)
            return
        if label.verb in JUNK:
            self._junk += 1
            if self._junk > _MAX_JUNK:
                self._take((421,), line, closes=True)
                return
        if verb == "DATA" and label.verb:
            self._data(line)
            return
        expected = self._right_codes(label)
        reply = self._take(expected, line, closes=label.closes)
        if reply.code == 250:
            self._turn(label)

    def _right_codes(self, label: Label) -> tuple[int, ...]:
        if label.verb == "MAIL":
            if not self._has_name or self._sender is not None:
                return (503,)
            if self._profile.auth == "required" and not self._has_login:
                return (530,)
        if label.verb == "RCPT":
            return self._right_for_rcpt(label)
        return label.codes

    def _right_for_rcpt(self, label: Label) -> tuple[int, ...]:
        if self._sender is None:
            return (503,)
        self._rcpts += 1
        if self._rcpts > MAX_RECIPIENTS:
            return (452,)
        if not (self._script.is_trusted or self._has_login):
            return (554,)
        if label.is_utf8 and not self._is_utf8:
            return (553,) if label.codes == (250,) else (553, *label.codes)
        return label.codes

    def _turn(self, label: Label) -> None:
        """Be in the state behind a 250."""
        match label.verb:
            case "MAIL":
                self._sender, self._is_utf8 = label.address, label.is_utf8
            case "RCPT":
                self._recipients.append(label.address)
            case "RSET":
                self._reset()
            case "HELO" | "EHLO":
                self._has_name, self._is_extended = True, label.verb == "EHLO"
                self._reset()

    def _reset(self) -> None:
        self._sender, self._recipients, self._rcpts, self._is_utf8 = None, [], 0, False

    # --- content

    def _data(self, line: bytes) -> None:
        if self._sender is None:
            self._take((503,), line)
            return
        if not self._recipients:
            self._take((554,), line)
            return
        if self._is_ended and self._said == len(self._replies):
            self.is_closed = True  # who says no more has no content
            raise _Over
        is_ahead = self._said < len(self._replies) and self._replies[self._said].at_byte > self._at
        right = 554 if is_ahead else 354  # content that came before it is another protocol
        if self._take((right,), line, closes=is_ahead).code == 354:
            self._content()

    def _content(self) -> None:
        start = self._at
        found = (b"\r\n" + self._sent[start:]).find(END)
        if found < 0:
            self._wait()
        self._at = start + found + len(END) - 2
        raw = self._sent[start : self._at - 3]
        message = Meant(self._sender or "", _distinct(self._recipients), _plain(raw), "")
        self._reset()
        right = self._right_for_content(len(raw), message.content)
        if 250 in right:
            self.maybe = message
        reply = self._take(right, "the final dot")
        self.maybe = None
        if reply.code == 250:
            self._junk = 0
            queue_id = reply.data.rpartition(b" ")[2].strip().decode()
            self.meant.append(message._replace(queue_id=queue_id))

    def _right_for_content(self, size_bytes: int, content: bytes) -> tuple[int, ...]:
        if size_bytes > LIMIT_BYTES:
            return (552,)
        header = content.partition(b"\r\n\r\n")[0] + b"\r\n"
        is_first = header.startswith(b"Received: hop")  # else it is no header
        if is_first and header.count(b"Received: hop\r\n") >= _MAX_HOPS:
            return (554,)
        return (250, 451, 452) if self._profile.has_trouble else (250,)

    # --- logins

    def _begin_login(self, line: bytes) -> None:
        if len(line) > _MAX_ANSWER_BYTES:
            self._take((500,), line)
            return
        _, _, argument = line.partition(b" ")
        mechanism, _, initial = argument.strip(b" \t").partition(b" ")
        initial = initial.strip(b" \t")
        kind = {b"PLAIN": "plain", b"LOGIN": "name"}.get(mechanism.upper(), "")
        wrong = self._wrong_login()
        if wrong or not kind:
            self._take((wrong or 504,), line)
        elif initial:
            self._challenge = kind
            self._hear(initial, _decoded(initial))
        else:
            self._ask(kind, line)

    def _wrong_login(self) -> int:
        if not self._profile.has_users:
            return 502
        if not self._is_extended or self._has_login or self._sender is not None:
            return 503
        return 0 if self._profile.peer == "127.0.0.1" else 538

    def _ask(self, kind: str, line: bytes) -> None:
        self._challenge = ""  # unless it is asked for
        if self._take((334,), line).code == 334:
            self._challenge = kind

    def _answer(self, line: bytes) -> None:
        is_wrong = line == b"*" or len(line) > _MAX_ANSWER_BYTES
        self._hear(line, None if is_wrong else _decoded(line))

    def _hear(self, line: bytes, answer: bytes | None) -> None:
        kind, self._challenge = self._challenge, ""
        if answer is None or (kind == "plain" and not _is_plain(answer)):
            self._take((500, 501), line)
        elif kind == "name":
            self._name = answer
            self._ask("password", line)
        else:
            right = [b"", self._name, answer] if kind == "password" else answer.split(b"\0")
            user = USER.encode()
            self._log_in(
                line, right in ([b"", user, PASSWORD.encode()], [user] * 2 + [PASSWORD.encode()])
            )

    def _log_in(self, line: bytes, is_right: bool) -> None:
        self._failed_logins += not is_right
        is_last = self._failed_logins >= _MAX_LOGINS
        right = 235 if is_right else 421 if is_last else 535
        self._has_login |= self._take((right,), line, closes=is_last).code == 235


def _decoded(text: bytes) -> bytes | None:
    if text == b"=":
        return b""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None


def _is_plain(answer: bytes) -> bool:
    parts = answer.split(b"\0")
    return len(parts) == 3 and bool(parts[1] and parts[2])


def _distinct(recipients: Sequence[str]) -> tuple[str, ...]:
    """Return whom a client named, of a mailbox in several spellings the first."""
    found: dict[str, str] = {}
    for one in recipients:
        found.setdefault(one.lower(), one)
    return tuple(found.values())


def _plain(raw: bytes) -> bytes:
    """Return content as it is meant: a dot less, and each line with its CRLF."""
    lines = [line.removeprefix(b".") for line in raw.split(b"\r\n")]
    return _BARE_END.sub(b"\r\n", b"\r\n".join(lines))


def _shown(what: bytes | str) -> str:
    return what if isinstance(what, str) else repr(what[:100])


def _codes(codes: tuple[int, ...]) -> str:
    return "a 5xx" if codes == _ANY_ERROR else " or ".join(map(str, codes))
