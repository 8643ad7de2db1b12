"""The client's end of an SMTP connection once it is open: content out, flow control, replies in.

One task at a time may use it. Replies that arrived before the connection was lost can still be
read: a provider that refuses content half way closes right after saying why. One that breaks the
grammar or a limit stays in the buffer, for nobody knows where the next one begins. Bare CR and LF
are repaired all the same: one that got through could start a forged message at the provider. RFC
5321 sections 4.2, 4.2.1, 4.5.2 and 4.5.3.1.6 (without the dot that stuffing adds).
"""

from __future__ import annotations

import asyncio
import re

from relaygw.mail.content import MAX_LINE_BYTES, normalise_line_ends
from relaygw.mail.reply import SmtpReply
from relaygw.mail.words import printable

MAX_LINES = 100
MAX_REPLY_LINE_BYTES = 4096
MAX_REPLY_BYTES = 65536
_PAUSE_AT_BYTES = 2 * MAX_REPLY_BYTES
_SLICE_BYTES = 262144

_SINGLE = re.compile(rb"([2-5][0-9][0-9])(?: ([\x20-\x7e]*))?\r\n")
_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)


class WireFailure(Exception):
    """The connection cannot be used any further; the text says what happened."""

    summary = "protocol error from {relay}"


class ConnectionLost(WireFailure):
    """The provider closed or reset the connection."""

    summary = "lost connection with {relay}"


class ReplyTimeout(WireFailure):
    """No reply, or no progress in sending, within the limit."""

    summary = "conversation with {relay} timed out"


class ReplyInvalid(WireFailure):
    """The provider broke the protocol: a reply's grammar, a limit, or whose turn it is."""


class WireProtocol(asyncio.Protocol):
    """Reader and writer of one connection; `closed` is done when the transport is."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._buffer = bytearray()
        self._wakeup: asyncio.Future[None] | None = None
        self._is_write_paused = False
        self._is_read_paused = False
        self._end: str | None = None  # why nothing more will arrive
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._deadline_s: float | None = None  # of the reply that is waited for
        self._is_overdue = False
        self.closed: asyncio.Future[None] = self._loop.create_future()

    def data_received(self, data: bytes) -> None:
        """Keep what arrived for the next read_reply."""
        self._buffer += data
        if len(self._buffer) > _PAUSE_AT_BYTES and not self._is_read_paused:
            self._is_read_paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """Note the end; the transport closes itself."""
        self._end = self._end or "closed by the provider"
        self._wake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end; buffered replies stay readable."""
        self._end = self._end or (str(exc) or type(exc).__name__ if exc else "closed")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.closed.done():
            self.closed.set_result(None)
        self._wake()

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self._is_write_paused = True

    def resume_writing(self) -> None:
        """The transport's buffer has room again."""
        self._is_write_paused = False
        self._wake()

    @property
    def has_unread(self) -> bool:
        """True when the provider said something that was not asked for yet."""
        return bool(self._buffer)

    @property
    def is_open(self) -> bool:
        """True while replies can still arrive."""
        return self._end is None and not self._transport.is_closing()

    def write(self, octets: bytes) -> None:
        """Hand `octets` to the transport; the loss of the connection shows at the next read."""
        if self.is_open:
            self._transport.write(octets)

    async def write_content(self, octets: bytes, *, timeout_s: float) -> None:
        """Write a large piece, waiting whenever the transport's buffer is full.

        Returns early when the provider speaks up or closes. `timeout_s` limits the time without any
        progress: a slow provider is waited for, a stuck one is not.
        """
        view = memoryview(octets)
        for start in range(0, len(view), _SLICE_BYTES):
            await asyncio.sleep(0)  # lets a refusal that came in meanwhile be seen
            if self.has_unread or not self.is_open:
                return
            self._transport.write(view[start : start + _SLICE_BYTES])
            await self._drain(timeout_s)

    async def flush(self, *, timeout_s: float) -> None:
        """Return when the transport has nothing left to write, but 64 KiB that TLS may hold."""
        if self.is_open and self._transport.get_write_buffer_size():
            self._transport.set_write_buffer_limits(high=1, low=0)
            try:
                await self._drain(timeout_s)
            finally:
                if self.is_open:
                    self._transport.set_write_buffer_limits()

    async def read_reply(self, *, timeout_s: float) -> SmtpReply:
        """Return the next reply; raises WireFailure."""
        reply = self.reply_at_hand()
        if reply is not None:
            return reply
        self._set_deadline(timeout_s)
        try:
            while reply is None:
                if self._end is not None:
                    raise ConnectionLost(self._end)
                if self._is_overdue:
                    raise ReplyTimeout(f"no reply within {timeout_s:g} s")
                await self._wait()
                reply = self.reply_at_hand()
        finally:
            self._deadline_s = None
        return reply

    def abort(self) -> None:
        """Close at once; what is still to be written is dropped."""
        self._transport.abort()

    def reply_at_hand(self) -> SmtpReply | None:
        """Return the next reply if all of it has arrived; raises ReplyInvalid."""
        reply = take_reply(self._buffer) if self._buffer else None
        if self._is_read_paused and len(self._buffer) <= _PAUSE_AT_BYTES:
            self._is_read_paused = False
            if self.is_open:
                self._transport.resume_reading()
        return reply

    async def _drain(self, timeout_s: float) -> None:
        while self._is_write_paused and self.is_open and not self.has_unread:
            left_bytes = self._transport.get_write_buffer_size()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._wait()
            except TimeoutError as error:
                if self._transport.get_write_buffer_size() >= left_bytes:
                    raise ReplyTimeout(f"nothing taken within {timeout_s:g} s") from error

    def _set_deadline(self, timeout_s: float) -> None:
        """Have `_is_overdue` set in time: one timer a connection, not one for each reply."""
        self._is_overdue = False
        self._deadline_s = deadline_s = self._loop.time() + timeout_s
        if self._timer is not None and self._timer.when() > deadline_s:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(deadline_s, self._look_at_deadline)

    def _look_at_deadline(self) -> None:
        self._timer = None
        if self._deadline_s is None:
            return
        if self._loop.time() >= self._deadline_s:
            self._is_overdue = True
            self._wake()
        else:
            self._timer = self._loop.call_at(self._deadline_s, self._look_at_deadline)

    async def _wait(self) -> None:
        self._wakeup = self._loop.create_future()
        try:
            await self._wakeup
        finally:
            self._wakeup = None

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)


# --- replies


def clean_text(raw: bytes) -> str:
    """Return a provider's text fit for logs and pages: UTF-8, unprintable characters as `?`."""
    text = raw.decode("utf-8", errors="replace")
    return text if text.isprintable() else printable(text)


def take_reply(buffer: bytearray) -> SmtpReply | None:
    """Remove the first whole reply from `buffer`, None: more is needed; raises ReplyInvalid."""
    # nearly every reply is one short line of ASCII
    single = _SINGLE.match(buffer)
    if single is not None and single.end() <= MAX_REPLY_LINE_BYTES:
        reply = SmtpReply(int(single[1]), ((single[2] or b"").decode("ascii").strip(),))
        del buffer[: single.end()]
        return reply
    return _take_any_reply(buffer)


def _take_any_reply(buffer: bytearray) -> SmtpReply | None:
    lines: list[str] = []
    code, start = 0, 0
    while True:
        found = buffer.find(b"\n", start)
        end = found if found != -1 else len(buffer)
        if end - start > MAX_REPLY_LINE_BYTES:
            raise ReplyInvalid(f"a reply line is longer than {MAX_REPLY_LINE_BYTES} bytes")
        if end > MAX_REPLY_BYTES:
            raise ReplyInvalid(f"a reply is longer than {MAX_REPLY_BYTES} bytes")
        if found == -1:
            return None
        line_code, is_last, text = _parse_line(bytes(buffer[start:end]))
        if lines and line_code != code:
            raise ReplyInvalid(f"a reply mixes the codes {code} and {line_code}")
        code = line_code
        lines.append(text)
        if len(lines) > MAX_LINES:
            raise ReplyInvalid(f"a reply has more than {MAX_LINES} lines")
        start = end + 1
        if is_last:
            del buffer[:start]
            return SmtpReply(code, tuple(lines))


def _parse_line(line: bytes) -> tuple[int, bool, str]:
    if not line.endswith(b"\r"):
        raise ReplyInvalid("a reply line ends with a bare LF")
    match = _LINE.fullmatch(line[:-1])
    if match is None:
        raise ReplyInvalid(f"not an SMTP reply: {clean_text(line[:40].rstrip())!r}")
    return int(match[1]), match[2] != b"-", clean_text(match[3] or b"").strip()


# --- content


class ContentEncoder:
    """Turns chunks of one message's content into wire bytes.

    `fold` breaks lines over 998 octets by CRLF and a space, as Postfix does, never inside a UTF-8
    character. Leave it off when no line is that long: it walks line by line.
    """

    def __init__(self, *, fold: bool) -> None:
        self._fold = fold
        self._held = b""  # a CR that may be half a CRLF, or the unfinished line while folding
        self._at_line_start = True

    def encode(self, chunk: bytes) -> bytes:
        """Return wire bytes for `chunk`, less what cannot be decided yet."""
        content = self._held + chunk if self._held else chunk
        if content.endswith(b"\r"):
            content, self._held = content[:-1], b"\r"
        else:
            self._held = b""
        if not content:
            return b""
        content = normalise_line_ends(content)
        if self._fold:
            content = self._fold_lines(content)
        return self._stuff(content)

    def finish(self) -> bytes:
        """Return the rest of the content, and the line with the final dot."""
        line = self._held[:-1] + b"\r\n" if self._held.endswith(b"\r") else self._held
        tail = self._stuff(line)
        return (tail if self._at_line_start else tail + b"\r\n") + b".\r\n"

    def _stuff(self, content: bytes) -> bytes:
        if not content:
            return content
        stuffed = content.replace(b"\r\n.", b"\r\n..")
        if self._at_line_start and content.startswith(b"."):
            stuffed = b"." + stuffed
        self._at_line_start = content.endswith(b"\r\n")
        return stuffed

    def _fold_lines(self, content: bytes) -> bytes:
        # the unfinished line stays here, so that where it breaks does not depend on chunks
        *pieces, rest = [piece for line in content.split(b"\r\n") for piece in _split_line(line)]
        self._held = rest + self._held
        return b"".join([piece + b"\r\n" for piece in pieces])


def _split_line(line: bytes) -> list[bytes]:
    """Return `line` in pieces of at most MAX_LINE_BYTES; all but the first begin with a space."""
    pieces = []
    start, indent = 0, b""
    while len(line) - start > MAX_LINE_BYTES - len(indent):
        end = start + MAX_LINE_BYTES - len(indent)
        # the nearest place that is not inside a UTF-8 character
        end = next((at for at in range(end, end - 4, -1) if line[at] & 0xC0 != 0x80), end)
        pieces.append(indent + line[start:end])
        start, indent = end, b" "
    pieces.append(indent + line[start:])
    return pieces
