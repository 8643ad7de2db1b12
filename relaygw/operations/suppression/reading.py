"""Reads a file of suppressed addresses line by line, in bounded memory, whoever wrote it.

A line that cannot be read is told with its number, and the rest is read all the same.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import chain
from typing import Any, BinaryIO, NamedTuple

from relaygw.mail.suppression import Suppression
from relaygw.mail.words import printable
from relaygw.operations.suppression.forms import (
    FORMS,
    POSTFIX,
    SES,
    Defaults,
    Form,
    Misread,
    Values,
    read_values,
)

MAX_LINE_BYTES = 65_536
_MOST_LINES = 10  # of one row with quoted fields
_HEAD_BYTES = 4096
_CHUNK_BYTES = 65_536
_DOCUMENT = re.compile(rb'\s*(?:\[|\{\s*"\w+"\s*:\s*\[)')
_BETWEEN = re.compile(r"[\s,]*")
_MAX_OBJECT = 1_048_576  # characters of one JSON object
_REFUSES = re.compile(r"(?:reject|discard|5\d\d)\b", re.IGNORECASE)
_MOST_UNREAD = 100  # lines that cannot be read, before the one that tells the form
_BINARY = (  # how files begin that are no text
    (b"\x1f\x8b", "a gzip file; unpack it"),
    (b"PK\x03\x04", "a zip file or a spreadsheet; unpack it, or save it as CSV"),
    (b"BZh", "a bzip2 file; unpack it"),
    (b"\xfd7zXZ", "an xz file; unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd file; unpack it"),
    (b"%PDF-", "a PDF file"),
    (b"\xff\xfe", "UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "UTF-16; save it as UTF-8"),
)
_TOO_LONG = f"is longer than {MAX_LINE_BYTES} bytes; expected one address a line"
_EXPECTED = (
    "expected a heading such as address,reason,source,stream,created_at,expires_at, an export of "
    "SES, SendGrid, Mailgun, Postmark or Resend, or a Postfix-style list"
)


_Object = tuple[int, Values | str]
"""The number of a line, and the fields of the object there or what is wrong with it."""


class UnknownForm(ValueError):
    """The beginning of a file is none of the known ones."""


class BadLine(NamedTuple):
    """A line that is no suppression, and why."""

    number: int
    problem: str


class _Line(NamedTuple):
    number: int
    text: str
    problem: str = ""
    is_comment: bool = False  # as far as its bytes tell, as the next
    has_address: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """A file that was recognised, and what is in it, read as it is asked for."""

    form: str
    found: Iterator[Suppression | BadLine]


def read_list(stream: BinaryIO, defaults: Defaults) -> Reading:
    """Recognise a file by its beginning and read it. Raises UnknownForm.

    Lines before the one that tells the form are told if they cannot be read. A heading that cannot
    be read makes a file of no form.
    """
    source = _Source(stream)
    if source.head.lstrip()[:1] in (b"{", b"["):
        return _json(source, defaults)
    lines = _Lines(source)
    unread, first = _beginning(lines)
    if first is None:
        return Reading("unknown" if unread else "empty", iter(unread))
    reading = _recognised(lines, first, defaults)
    return Reading(reading.form, chain(unread, reading.found))


def _beginning(lines: _Lines) -> tuple[Sequence[BadLine], _Line | None]:
    """Return the first line that can be read, which stays, and those before it that cannot."""
    unread: list[BadLine] = []
    for line in iter(lines.first, None):
        if not line.problem:
            return unread, line
        if not line.has_address or len(unread) >= _MOST_UNREAD:
            raise UnknownForm(f"line {line.number}: {line.problem}; {_EXPECTED}")
        lines.drop_first()
        unread.append(BadLine(line.number, line.problem))
    return unread, None


def _recognised(lines: _Lines, first: _Line, defaults: Defaults) -> Reading:
    names = [_name(one) for one in _cells(first.text)]
    headed = next((form for form in FORMS if form.is_headed_by(names)), None)
    if headed is not None and "@" not in first.text:
        lines.drop_first()
        return Reading(headed.name, _rows(lines, headed, names, defaults))
    if _is_ses(first):
        return Reading(SES.name, _rows(lines, SES, ("emailaddress", "reason"), defaults))
    if "@" not in first.text.split("#")[0]:
        shown = printable(first.text)[:80]
        raise UnknownForm(f"line {first.number}: {shown!r} is not known; {_EXPECTED}")
    return Reading(POSTFIX.name, _access_map(lines, defaults))


# --- lines --------------------------------------------------------------------------------


class _Source:
    """A stream whose beginning may be looked at before it is read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.head = stream.read(_HEAD_BYTES)
        kind = next((what for magic, what in _BINARY if self.head.startswith(magic)), None)
        if (
            kind is None and b"\0" in self.head.partition(b"\n")[0]
        ):  # one further on spoils its line
            kind = "not text: its first line has a byte of 0"
        if kind is not None:
            raise UnknownForm(f"it is {kind}; {_EXPECTED}")
        self.head = self.head.removeprefix(b"\xef\xbb\xbf")

    def readline(self, limit: int) -> bytes:
        head = self.head
        if not head:
            return self._stream.readline(limit)
        end = head.find(b"\n") + 1 or len(head)
        line, self.head = head[:end], head[end:]
        if line.endswith(b"\n"):
            return line
        return line + self._stream.readline(limit - len(line))

    def read(self, size: int) -> bytes:
        head, self.head = self.head, b""
        return head or self._stream.read(size)


class _Lines:
    """The lines of a file with their numbers; none takes more memory than MAX_LINE_BYTES."""

    def __init__(self, stream: _Source) -> None:
        self._stream = stream
        self._number = 0
        self._back: deque[_Line] = deque()

    def first(self) -> _Line | None:
        """Return the first line that is neither empty nor a comment; it stays."""
        for line in self:
            is_comment = line.is_comment or line.text.startswith("#")
            if (line.problem or line.text.strip()) and not is_comment:
                self._back.appendleft(line)
                return line
        return None

    def drop_first(self) -> None:
        self._back.popleft()

    def put_back(self, lines: Sequence[_Line]) -> None:
        self._back.extendleft(reversed(lines))

    def __iter__(self) -> Iterator[_Line]:
        while True:
            line = self._back.popleft() if self._back else self._next()
            if line is None:
                return
            yield line

    def _next(self) -> _Line | None:
        raw = self._stream.readline(MAX_LINE_BYTES + 1)
        if not raw:
            return None
        self._number += 1
        if len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
            has_address = b"@" in raw
            while more := self._stream.readline(MAX_LINE_BYTES):
                has_address = has_address or b"@" in more
                if more.endswith(b"\n"):
                    break
            return self._unread(raw, _TOO_LONG, has_address=has_address)
        try:
            text = raw.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            what = f"byte {raw[error.start]:#04x} at {error.start} is not UTF-8; expected UTF-8"
            return self._unread(raw, what, has_address=b"@" in raw)
        return _Line(self._number, text)

    def _unread(self, raw: bytes, problem: str, *, has_address: bool) -> _Line:
        is_comment = raw.startswith(b"#")
        return _Line(self._number, "", problem, is_comment=is_comment, has_address=has_address)


def _records(lines: _Lines) -> Iterator[_Line]:
    """Yield lines; those that a quoted field breaks become one, unless its quotes do not fit."""
    for line in lines:
        parts = [line]
        found, is_open = _parsed(line.text)
        while is_open and len(parts) < _MOST_LINES:
            more = next(iter(lines), None)
            if more is None:
                break
            parts.append(more)
            if more.problem:
                break
            found, is_open = _parsed("\n".join(one.text for one in parts))
        if found is None:
            lines.put_back(parts[1:])
            problem = line.problem or "is not CSV: its quotes do not fit"
            yield line._replace(problem=problem)
        else:
            yield line._replace(text="\n".join(one.text for one in parts))


def _parsed(text: str) -> tuple[list[str] | None, bool]:
    """Return the fields of a row of CSV, None where it is none; and whether a quote is open."""
    separator = ";" if ";" in text and "," not in text else ","
    try:
        rows = csv.reader(StringIO(text, newline=""), delimiter=separator, strict=True)
        return next(rows, []), False
    except csv.Error as error:
        return None, "unexpected end" in str(error)


def _cells(text: str) -> list[str]:
    return _parsed(text)[0] or []


def _name(heading: str) -> str:
    return re.sub(r"[\s_-]", "", heading).lower()


def _is_ses(line: _Line) -> bool:
    cells = _cells(line.text)
    is_named = len(cells) == 2 and cells[1].strip().upper() in ("BOUNCE", "COMPLAINT")
    return is_named and "@" in cells[0]


# --- what is in them ----------------------------------------------------------------------


def _rows(
    lines: _Lines, form: Form, names: Sequence[str], defaults: Defaults
) -> Iterator[Suppression | BadLine]:
    for line in _records(lines):
        if not line.problem and not line.text.strip():
            continue
        if line.problem:
            yield BadLine(line.number, line.problem)
            continue
        cells = _cells(line.text)
        if len(cells) > len(names):
            what = f"has {len(cells)} fields; expected {len(names)}: {', '.join(names)}"
            yield BadLine(line.number, what)
        else:
            yield _read(line.number, form, dict(zip(names, cells, strict=False)), defaults)


def _read(number: int, form: Form, values: Values, defaults: Defaults) -> Suppression | BadLine:
    try:
        return read_values(form, values, defaults)
    except Misread as error:
        return BadLine(number, str(error))


def _access_map(lines: _Lines, defaults: Defaults) -> Iterator[Suppression | BadLine]:
    """Read addresses, each with an action of Postfix's access(5) or without one."""
    for line in lines:
        text = line.text.strip()
        if line.problem and not line.is_comment:
            yield BadLine(line.number, line.problem)
        elif text and not text.startswith("#") and not line.text[0].isspace():
            address, action = _apart(text)
            if action and not _REFUSES.match(action):
                shown = printable(action)[:40]
                what = f"{shown!r} does not refuse for good; expected REJECT, DISCARD or 5xx"
                yield BadLine(line.number, what)
            elif "@" not in address:
                what = (
                    f"{printable(address)[:80]!r} is not an address; expected user@example.com; "
                    "recipients.block takes whole domains"
                )
                yield BadLine(line.number, what)
            else:
                values = {"address": address, "detail": action}
                yield _read(line.number, POSTFIX, values, defaults)


def _apart(text: str) -> tuple[str, str]:
    """Return the address at the beginning of a line, which may be quoted, and the rest."""
    match = re.match(r'((?:"(?:[^"\\]|\\.)*"|[^\s",])+)[\s,]*(.*)', text)
    return (match[1], match[2]) if match else (text, "")


# --- JSON ---------------------------------------------------------------------------------


def _json(source: _Source, defaults: Defaults) -> Reading:
    """Read objects: one a line, or those of the first array of a document."""
    shown = printable(source.head[:80].decode(errors="replace"))
    is_document = _DOCUMENT.match(source.head) is not None
    objects = _objects_of_array(source) if is_document else _objects_by_line(_Lines(source))
    begun: list[_Object] = []
    for number, one in objects:
        begun.append((number, one))
        if not isinstance(one, str):
            form = next((one_form for one_form in FORMS if one_form.is_headed_by(list(one))), None)
            if form is None:
                raise UnknownForm(f"line {number}: {shown!r} is not known; {_EXPECTED}")
            return Reading(form.name, _read_objects(chain(begun, objects), form, defaults))
        if len(begun) > _MOST_UNREAD:
            break
    if not begun:
        return Reading("empty", iter(()))
    number, problem = begun[0]
    raise UnknownForm(f"line {number}: {shown!r} {problem}; {_EXPECTED}")


def _read_objects(
    objects: Iterable[_Object], form: Form, defaults: Defaults
) -> Iterator[Suppression | BadLine]:
    for number, one in objects:
        if isinstance(one, str):
            yield BadLine(number, one)
        else:
            yield _read(number, form, one, defaults)


def _objects_by_line(lines: _Lines) -> Iterator[_Object]:
    for line in lines:
        if line.problem:
            yield line.number, line.problem
        elif line.text.strip():
            try:
                yield line.number, _values_of(json.loads(line.text))
            except (ValueError, RecursionError):
                yield line.number, "is not JSON; expected one object per line"


def _values_of(found: Any) -> Values | str:
    if not isinstance(found, dict):
        return "is not an object; expected {...}"
    return {
        _name(str(key)): "" if value is None else str(value)
        for key, value in found.items()
        if not isinstance(value, (dict, list))
    }


def _objects_of_array(source: _Source) -> Iterator[_Object]:
    """Yield the objects of the first array of a document; behind a broken one nothing is known."""
    read = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape").decode
    decoder, text, at, number = json.JSONDecoder(), "", 0, 1
    is_begun = False
    while True:
        chunk = source.read(_CHUNK_BYTES)
        number += text.count("\n", 0, at)
        text, at = text[at:] + read(chunk, not chunk), 0
        if not is_begun:
            at, is_begun = text.find("[") + 1, True
        while True:
            at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing, too
            if text.startswith("]", at):
                return
            try:
                found, end = decoder.raw_decode(text, at)
            except (ValueError, RecursionError):
                break
            yield number + text.count("\n", 0, at), _values_of(found)
            at = end
        if not chunk or len(text) - at > _MAX_OBJECT:
            what = "is not JSON" if chunk else "is not JSON, or the end of the file is missing"
            yield number + text.count("\n", 0, at), f"{what}; the rest of the file is not read"
            return
