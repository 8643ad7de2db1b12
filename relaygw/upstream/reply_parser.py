"""The reader of SMTP replies: bytes in, one SmtpReply out, strict and bounded.

No I/O. A reply that breaks the grammar or a limit raises ReplyInvalid and leaves the buffer as
it was: the connection must be dropped then, since nobody knows where the next reply begins.
RFC 5321 sections 4.2 and 4.2.1; a code without text is legal there, and clients must take it.
"""

from __future__ import annotations

import re

from relaygw.mail.reply import SmtpReply

MAX_LINES = 100
MAX_LINE_BYTES = 4096
MAX_REPLY_BYTES = 65536

_SINGLE = re.compile(rb"([2-5][0-9][0-9])(?: ([\x20-\x7e]*))?\r\n")
_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)


class ReplyInvalid(Exception):
    """The peer broke the reply grammar or a limit; the text says how."""


def clean_text(raw: bytes) -> str:
    """Return a provider's text fit for logs and pages: UTF-8, unprintable characters as `?`."""
    text = raw.decode("utf-8", errors="replace")
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "?" for char in text)


def take_reply(buffer: bytearray) -> SmtpReply | None:
    """Remove the first whole reply from `buffer` and return it; None when more is needed.

    Raises ReplyInvalid.
    """
    # nearly every reply is one short line of ASCII
    single = _SINGLE.match(buffer)
    if single is not None and single.end() <= MAX_LINE_BYTES:
        reply = SmtpReply(int(single[1]), ((single[2] or b"").decode("ascii").strip(),))
        del buffer[: single.end()]
        return reply
    return _take_any_reply(buffer)


def _take_any_reply(buffer: bytearray) -> SmtpReply | None:
    lines: list[str] = []
    code, start = 0, 0
    while True:
        end = buffer.find(b"\n", start)
        length = (end if end != -1 else len(buffer)) - start
        if length > MAX_LINE_BYTES:
            raise ReplyInvalid(f"a reply line is longer than {MAX_LINE_BYTES} bytes")
        if (end if end != -1 else len(buffer)) > MAX_REPLY_BYTES:
            raise ReplyInvalid(f"a reply is longer than {MAX_REPLY_BYTES} bytes")
        if end == -1:
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
    """Return code, whether it is the last line, and text of a line without its LF."""
    if not line.endswith(b"\r"):
        raise ReplyInvalid("a reply line ends with a bare LF")
    match = _LINE.fullmatch(line[:-1])
    if match is None:
        raise ReplyInvalid(f"not an SMTP reply: {clean_text(line[:40].rstrip())!r}")
    return int(match[1]), match[2] != b"-", clean_text(match[3] or b"").strip()
