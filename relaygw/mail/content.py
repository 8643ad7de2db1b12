"""Message content: line ends, and the fields of its header.

Every line ends with CRLF (RFC 5321 section 2.3.8), so that no bare CR or LF can look like an end of
data to a server down the line.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from relaygw.mail.drop import MAX_HEADER_BYTES

MAX_LINE_BYTES = 998  # without its CRLF: providers must take it (RFC 5321 section 4.5.3.1.6)
READ_HEADER_BYTES = MAX_HEADER_BYTES + 2**16
"""How far a stored header is read: a longest one, and the fields put in front of it."""

_NAME = rb"[!-9;-~]++"
_FIELD = rb"(%b)[ \t]*+:([^\r\n]*+(?:\r\n[ \t][^\r\n]*+)*+)"
_FIELD_START = re.compile(_NAME + rb"[ \t]*:")
_MBOX_LINE = re.compile(rb">?From ")
SOURCE_FIELD = "X-Relaygw-Source"  # where a message came from: see source_header
_SOURCE = SOURCE_FIELD.lower()
_STANDARD = frozenset(
    ("received", "date", "message-id", "subject", "x-php-originating-script", _SOURCE)
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+ *")
MAX_LINK_CHARACTERS = 200  # more is no number of an order, and is not kept
_MAX_AUTHOR_BYTES = 1000  # of From, that are looked at
_DOMAIN = re.compile(r"@([\w-]+(?:\.[\w-]+)*+)")
_MAX_SUBJECT_BYTES = 4096  # what is decoded and stored; the header itself is untouched


def normalise_line_ends(data: bytes) -> bytes:
    """Return `data` with every bare CR and bare LF turned into CRLF."""
    rest = data.replace(b"\r\n", b"")  # half the time of three counts
    if b"\n" not in rest and b"\r" not in rest:
        return data
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def has_long_line(data: bytes, *, carried_bytes: int = 0) -> bool:
    """True if a line is longer than MAX_LINE_BYTES without its CRLF, with a look per 998 bytes.

    `carried_bytes` of the first line came before `data`.
    """
    start, limit = -carried_bytes, MAX_LINE_BYTES + 2
    last = len(data) - limit
    while start <= last:
        line_end = data.rfind(b"\n", start if start > 0 else 0, start + limit)
        if line_end < 0:
            return True
        start = line_end + 1
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderFacts:
    """What acceptance needs to know of a header."""

    has_header: bool = True  # False: the content starts with text, not with a field
    is_mbox_line_first: bool = False
    hops: int = 0  # Received fields
    has_date: bool = False
    message_id: str = ""
    subject: str = ""
    script: str | None = None  # X-PHP-Originating-Script
    source: bytes | None = None  # the first X-Relaygw-Source, as it stands there
    source_fields: tuple[tuple[int, int], ...] = ()  # from where to where each of these is
    values: dict[str, str] = field(default_factory=dict)  # first value of each wanted field
    end: int = 0  # where the header block ends, without the blank line


class HeaderField(NamedTuple):
    """Where a field of a header stands: offsets into the content that it was found in."""

    name: bytes  # as it is written, without the spaces that some put before the colon
    start: int
    value_start: int  # behind the colon
    value_end: int  # before its last line end; folding is part of the value
    end: int  # behind its last line end


@lru_cache(maxsize=64)
def field_patterns(names: frozenset[str] | None) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Return a pattern of the field that a header begins with, and one of the others.

    A search for a line end is many times as quick as one for the beginning of a line, and most
    lines begin with a letter that none of the names begins with.
    """
    chosen = _NAME
    if names is not None:
        letters = re.escape("".join(sorted({name[0] for name in names})))
        chosen = f"(?=[{letters}])(?:{'|'.join(map(re.escape, sorted(names)))})".encode()
    field = _FIELD % chosen
    return re.compile(field, re.IGNORECASE), re.compile(b"\n" + field, re.IGNORECASE)


@lru_cache(maxsize=16)
def _wanted_names(wanted: frozenset[str]) -> frozenset[str]:
    return _STANDARD | wanted


def field_matches(
    content: bytes, start: int, end: int, names: frozenset[str] | None
) -> Iterator[re.Match[bytes]]:
    """Find the fields as `header_fields` does, in half the time: group 1 is a name, 2 its value."""
    first, others = field_patterns(names)
    found = first.match(content, start, end)
    rest = others.finditer(content, start, end)
    return rest if found is None else chain((found,), rest)


def _field_end(content: bytes, value_end: int, end: int) -> int:
    return value_end + 2 if content.startswith(b"\r\n", value_end, end) else value_end


def header_fields(
    content: bytes, start: int = 0, end: int | None = None, *, names: Collection[str] | None = None
) -> Iterator[HeaderField]:
    """Yield the fields of the header between `start` and `end` of normalised `content`, in order.

    A field is, for the whole program, a line that begins with a name of printable ASCII and a
    colon, and the lines behind it that begin with a space or a tab (RFC 5322 section 2.2, with the
    spaces of section 4.5.8). Only CRLF ends a line. Other lines are passed over. `names`, in lower
    case: only these fields. Time grows with the size alone.
    """
    end = len(content) if end is None else end
    for match in field_matches(content, start, end, None if names is None else frozenset(names)):
        (name_start, _), (value_start, value_end) = match.span(1), match.span(2)
        field_end = _field_end(content, value_end, end)
        yield HeaderField(match[1], name_start, value_start, value_end, field_end)


def header_end(content: bytes, start: int = 0, limit: int | None = None) -> int:
    """Return where the header from `start` is over: before the empty line, else at `limit`."""
    if content.startswith(b"\r\n", start):
        return start
    limit = len(content) if limit is None else limit
    blank = content.find(b"\r\n\r\n", start, limit)
    return limit if blank < 0 else blank + 2


def read_header(content: bytes, wanted: frozenset[str] = frozenset()) -> HeaderFacts:
    """Return the facts of the header of normalised `content`, and `wanted` values (lower case)."""
    start = 0
    is_mbox = _MBOX_LINE.match(content) is not None
    if is_mbox:
        start = content.find(b"\r\n") + 2
    if content.startswith(b"\r\n", start):
        return HeaderFacts(is_mbox_line_first=is_mbox, end=start)
    if not _FIELD_START.match(content, start):
        return HeaderFacts(has_header=False, is_mbox_line_first=is_mbox)
    end = header_end(content, start)
    hops = 0
    first: dict[str, bytes] = {}
    source_fields: list[tuple[int, int]] = []
    for match in field_matches(content, start, end, _wanted_names(wanted)):
        name = match[1].decode("ascii").lower()
        if name == "received":
            hops += 1
        elif name == _SOURCE:
            source_fields.append((match.start(1), _field_end(content, match.end(), end)))
        if name not in first:
            first[name] = match[2]
    script = first.get("x-php-originating-script")
    return HeaderFacts(
        is_mbox_line_first=is_mbox,
        hops=hops,
        has_date="date" in first,
        message_id=_plain(first.get("message-id", b"")),
        subject=_decoded(first.get("subject", b"")),
        script=None if script is None else _plain(script),
        source=first.get(_SOURCE),
        source_fields=tuple(source_fields),
        values={name: _decoded(first[name]) for name in wanted if name in first},
        end=end,
    )


def link_value(facts: HeaderFacts, name: str) -> str | None:
    """Return the value of the field by which pages link to mail; None without a usable one."""
    value = " ".join(facts.values.get(name.lower(), "").split())
    return value if 0 < len(value) <= MAX_LINK_CHARACTERS else None


def author_domain(content: bytes) -> str:
    """Return the domain of From, in lower case; "" where it has none."""
    end = header_end(content)
    for header_field in header_fields(content, 0, end, names={"from"}):
        value_end = min(header_field.value_end, header_field.value_start + _MAX_AUTHOR_BYTES)
        domains = _DOMAIN.findall(
            content[header_field.value_start : value_end].decode("utf-8", "replace")
        )
        return domains[-1].lower() if domains else ""  # a name in front of it may have an @
    return ""


def without_fields(content: bytes, fields: Sequence[tuple[int, int]]) -> bytes:
    """Return `content` without these ranges of it, which are in order."""
    kept = []
    start = 0
    for field_start, field_end in fields:
        kept.append(content[start:field_start])
        start = field_end
    return b"".join([*kept, content[start:]])


def _plain(raw: bytes) -> str:
    text = raw[:_MAX_SUBJECT_BYTES].decode("utf-8", "replace").strip()
    return text if text.isprintable() else _CONTROL.sub(" ", text).strip()


def _decoded(raw: bytes) -> str:
    """Return a header value for people: RFC 2047 words decoded, control characters gone."""
    text = _plain(raw)
    if "=?" not in text:
        return text
    words, end, rest = text.rpartition("?=")  # none begins behind it, and each begun has an end
    try:
        decoded = str(make_header(decode_header(words + end))) + rest
    except (HeaderParseError, LookupError, ValueError):  # unknown charset, broken base64
        return text
    # some charsets decode to lone surrogates, which no database can store
    return _CONTROL.sub(" ", decoded.encode("utf-8", "replace").decode()).strip()
