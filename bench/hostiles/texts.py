"""What a stranger may write, of any size: heads, bodies, values, pages, replies, events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple


class Case(NamedTuple):
    """A hostile text of any size."""

    name: str
    of: Callable[[int], bytes]


_PUMPS = [
    b" ", b"\t", b"\r\n ", b" \r\n ", b"\r\n", b"\n", b"\r", b"a", b"a ", b"1", b"1 ", b"-", b".",
    b"<", b">", b"(", b")", b"()", b'"', b'" ', b"\\", b'\\"', b"'", b",", b";", b":", b"@", b"=",
    b"{", b"[", b"[[", b'{"a":', b"a@", b"@a", b"a,", b"a.", b"<a", b"a=", b";a=", b";a*0=", b"a:",
    b";a*1*=%41", b"=?", b"=?x?q?a", b"=?x?b?a", b"=?utf-8?q?a?= ", b"=?utf-8?b?YQ==?=", b"%",
    b"%40", b"&#", b"&", b"//", b"http://", b"http://a ", b"aHR0c", b"://", b"/*", b"--", b"\0",
    b"\x01", b"\xe9", b"\xc3\xa9", b"\xc3\xa9 ", b'"\xc3\xa9', b"(\xc3\xa9", b"<\xc3\xa9",
    b"a\xc3\xa9,", "\u0301\u0316".encode(), "\u1100\u1161".encode(), "\u0344\u0316".encode(),
    "\ufdfa".encode(),
]  # fmt: skip
"""What a text repeats: signs that begin or end something, and what Unicode has to put in order."""
_CORE = _PUMPS[::3]
_STARTS = (b"x", b"", b"<", b'"')
_ENDS = (b"\x01z", b"@y.test>")


def values() -> Iterator[Case]:
    """Return values of fields, addresses, words, texts on one line."""
    for pump in _PUMPS:
        for start in _STARTS:
            for end in _ENDS:
                name = f"{start!r} + {pump!r} * n + {end!r}"
                yield Case(name, partial(_run, start, pump, end))
    yield Case("letters that are all different", _all_different)


def _all_different(size: int) -> bytes:
    return "".join(chr(0x4E00 + number % 0x5000) for number in range(size // 3)).encode()


def few_values() -> Iterator[Case]:
    """Return some of them, for what costs more."""
    for pump in _CORE:
        yield Case(f"{pump!r} * n", partial(_run, b"x", pump, b"\x01z"))


def _run(start: bytes, pump: bytes, end: bytes, size: int) -> bytes:
    return start + pump * (size // len(pump)) + end


_NAMES = [
    b"From", b"To", b"Reply-To", b"Subject", b"Message-ID", b"Received", b"Date", b"Return-Path",
    b"Content-Type", b"Content-Disposition", b"Content-Transfer-Encoding", b"Content-ID",
    b"X-Relaygw-Source", b"X-SMTPAPI", b"X-Mailgun-Variables", b"X-SES-MESSAGE-TAGS",
    b"X-Mailin-custom", b"List-Unsubscribe", b"Precedence", b"=?utf-8?q?x?=", b"X",
]  # fmt: skip
_MUCH_READ = (b"From", b"Subject", b"Content-Type", b"X-SMTPAPI", b"X")
_FIELDS = (
    b"a: b\r\n", b"To: a@b\r\n", b"Received: x\r\n", b"X-SMTPAPI: {}\r\n", b"=?x?q?a?=: x\r\n",
    b"Reply-To: x\r\n", b"stray\xc3\xa9: x\r\n", b"no colon\r\n", b"Subject: \xc3\xa9\r\n",
    b"Content-Type: text/plain\r\n", b"X-Relaygw-Source: v=1\r\n", b"X-PM-Metadata-a: b\r\n",
    b"Content-Type: multipart/mixed; boundary=b\r\n", b">From x\n", b"From x\r\n", b"a: b\r",
    b"a:\n",
)  # fmt: skip
_AFTER = b"Subject: x\r\n\r\nhello \xc3\xa9\r\n"


def heads() -> Iterator[Case]:
    """Return mails with a hostile header."""
    for name in _NAMES:
        for pump in _PUMPS if name in _MUCH_READ else _CORE:
            for start, end in ((b": x", b"\x01z\r\n"), (b":", b"z@y\r\n")):
                yield Case(
                    f"field {name.decode()}{start.decode()} + {pump!r} * n",
                    partial(_run, name + start, pump, end + _AFTER),
                )
    for pump in _PUMPS:
        yield Case(f"name {pump!r} * n", partial(_run, b"x", pump, b": z\r\n" + _AFTER))
        yield Case(f"name {pump!r} * n: no colon", partial(_run, b"x", pump, b"\r\n" + _AFTER))
    for field in _FIELDS:
        yield Case(f"fields {field!r} * n", partial(_run, b"", field, b"\r\nbody \xc3\xa9\r\n"))


_TYPES = ("text/plain", "text/html", "multipart/mixed; boundary=b")
_MORE_TYPES = (
    "text/html; charset=utf-8", "text/plain; charset=utf-8", "text/plain; charset=utf-7",
    "text/plain; charset=iso-2022-jp", "text/plain; charset=hz", "message/rfc822", "text/csv",
    "multipart/alternative; boundary=b", "text/calendar", "image/png", "application/pdf",
)  # fmt: skip
_LINES = (
    b"--b\r\n", b"--b\r\n\r\n", b"--b--\r\n", b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n",
    b"--b\r\nContent-Type: message/rfc822\r\n\r\n",
    b"--b\r\nContent-Type: text/html\r\n\r\n<p>\r\n",
    b"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n", b"--\r\nContent-Type:\r\n",
    b"--b\r\nContent-Disposition: attachment; filename=a\r\n\r\nx\r\n", b"--", b"> ",
    b"On a wrote:", b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\xc3\xa9\r\n",
    b"4111 1111 1111 111", b"code 1234 ", b"order #1 ", b"password: a",
    b"DE89 3704 0044 0532 0130 00", b"4111-", b"Bearer a", b"-----BEGIN PRIVATE KEY-----",
    b"line\r\n", b"l\r\n\r\n", b"=\r\n", b"=C3=A9", b"YQ==", b"YQ\r\n", b"BEGIN:VEVENT\r\n",
    b"ATTENDEE;CN=a:mailto:a\r\n", b"A;B=", b"A\r\n ", b"+AGE-", b"\x1b$B", b"~{",
    b"https://a.test/?id=abcdefgh1 ", b"Anonymous", b"0123456789abcdef", b"a\xc3\xa9\r\n",
    b"..\r\n",
)  # fmt: skip
_TAGS = (
    b"<b>", b"<a>", b"<a href=x>", b"<p>", b"<table>", b"<td>", b"<div style=a:b>", b"</b>",
    b"<b><a>", b"<style>", b"<style>a{}</style>", b"<!--", b"<!-- -->", b"<![", b"<script>",
    b"</style", b"<a ", b"<a b=", b"<img src=cid:a>", b"<img src=data:", b"a{", b"a{b:c}",
    b"@import ", b"url(", b'url("', b"@media a{", b"}", b"-a", b"a-", b"a(", b"/*", b"*/", b"\\a",
    b"&amp;", b"&lt", b"&#1", b"<svg>", b"(prefers-color-scheme", b"color-scheme:", b"<select>",
    b"<font>", b"<math>", b"<a b='", b'<a b="',
)  # fmt: skip


def mails() -> Iterator[Case]:
    """Return mails with a hostile body."""
    for kind in (*_TYPES, *_MORE_TYPES):
        head = b"Subject: x\r\nContent-Type: %b\r\n\r\n" % kind.encode()
        pumps = (*_PUMPS, *_LINES) if kind in _TYPES else (*_CORE, *_LINES[::3])
        for pump in dict.fromkeys((*pumps, *(_TAGS if kind == "text/html" else ()))):
            yield Case(f"{kind}: {pump!r} * n", partial(_run, head, pump, b"\x01 \xc3\xa9\r\n"))
    for encoding in (b"base64", b"quoted-printable", b"x-uuencode"):
        head = b"Content-Type: text/html\r\nContent-Transfer-Encoding: %b\r\n\r\n" % encoding
        for pump in (b"YQ==\r\n", b"YWFh", b"=", b"=\r\n", b"=41", b" ", b" \r\n", b"PGI+", b"_"):
            yield Case(f"{encoding.decode()}: {pump!r} * n", partial(_run, head, pump, b"\r\n"))
    for text in ("plain", "html"):
        head = f"Content-Type: text/{text}; charset=utf-8\r\n\r\n".encode()
        marks = "\u0301\u0316".encode()
        for link in (b"http://a", b'<a href="http://a'):
            yield Case(f"link of marks, {text}", partial(_run, head + link, marks, b'">x'))
    yield Case("parts within parts", _nested)
    yield Case("lines behind parts within parts", partial(_nested, lines=True))
    yield Case("the same lines as text and as HTML", _said_twice)


def _nested(size: int, *, lines: bool = False) -> bytes:
    levels = 100 if lines else size // 70
    content = b"Content-Type: multipart/mixed; boundary=b0\r\n\r\n"
    for level in range(1, levels):
        edge = b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n"
        content += edge % (level - 1, level)
    return content + b"\r\n" * (size // 2 if lines else 1)


def _said_twice(size: int) -> bytes:
    line = b"".join(b"%d a\r\n" % number for number in range(size // 16))
    part = b"--b\r\nContent-Type: %b\r\n\r\n%b"
    head = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    return head + part % (b"text/plain", line) + part % (b"text/html", line[::-1]) + b"--b--\r\n"


_PAGE_STARTS = [
    b"", b"<style>", b"<a ", b'<a href="http://', b'<p style="', b"<!--", b"<body>a", b"<style>a{",
    b"<p><b>",
]  # fmt: skip


def pages() -> Iterator[Case]:
    """Return HTML and CSS."""
    for start in _PAGE_STARTS:
        for pump in dict.fromkeys((*_PUMPS, *_TAGS)):
            yield Case(f"{start!r} + {pump!r} * n", partial(_run, start, pump, b"\x01>x"))


def replies() -> Iterator[Case]:
    """Return what a provider says."""
    for start, end in ((b"550 5.1.1 ", b"\r\n"), (b"451-", b"\r\n451 x\r\n")):
        for pump in _PUMPS:
            yield Case(f"{start!r} + {pump!r} * n", partial(_run, start, pump, end))
    for line in (
        b"250-a\r\n",
        b"550-5.1.1 a\r\n",
        b"250-\r\n",
        b"550-<a@b\r\n",
        b"2",
        b"999-x\r\n",
    ):
        yield Case(f"{line!r} * n", partial(_run, b"", line, line[:3] + b" x\r\n"))


_LONG = ("a", " ", "<a", "a@", '"', "1", ".", "a.", "5.1.1 ", "<a>", "\\", ";", "\r\n ")
_OPEN = (b"[", b'{"a":', b"[1,", b'"', b"1", b"{}", b"[{},", b" ", b'"\\u0061', b"-", b"1e")


def events(samples: list[bytes]) -> Iterator[Case]:
    """Return what a provider posts: each text of a sample is made long, and what opens nests."""
    for number, sample in enumerate(samples):
        whole = json.loads(sample)
        for place in _places(whole):
            for long in _LONG:
                name = f"event {number} {place} {long!r} * n"
                yield Case(name, partial(_with_text, whole, place, long))
    for pump in _OPEN:
        for start in (b"", b"["):
            yield Case(f"{start!r} + {pump!r} * n", partial(_run, start, pump, b""))
    for key in (b'"a":1,', b'"event":"bounce",'):
        yield Case(f"{key!r} * n", partial(_run, b"{", key, b'"b":1}'))


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(inner, (*path, key))
    elif isinstance(value, str):
        yield path


def _with_text(whole: Any, place: tuple[Any, ...], pump: str, size: int) -> bytes:
    changed = json.loads(json.dumps(whole))
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = "x" + pump * (size // len(pump)) + "\x01"
    return json.dumps(changed).encode()


def bounces(samples: list[bytes]) -> Iterator[Case]:
    """Return bounce mails: each line of a sample is made long by what fits nowhere."""
    for number, sample in enumerate(samples):
        lines = sample.split(b"\n")
        for at, line in enumerate(lines):
            for pump in (
                b" ",
                b";",
                b"a",
                b"\t",
                b'"',
                b"<",
                b"(",
                b"a@",
                b"\r\n ",
                b",",
                b"=?x?q?a",
            ):
                name = f"bounce {number} {line[:30]!r} + {pump!r} * n"
                yield Case(name, partial(_with_line, lines, at, pump))
    for case in (*heads(), *mails()):
        if "boundary" in case.name or "Content-Type" in case.name or "parts" in case.name:
            yield case


def _with_line(lines: list[bytes], at: int, pump: bytes, size: int) -> bytes:
    long = lines[at] + pump * (size // len(pump)) + b"y"
    return b"\r\n".join([*lines[:at], long, *lines[at + 1 :]])
