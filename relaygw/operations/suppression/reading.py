"""Reads a file of suppressed addresses line by line, in bounded memory, whoever wrote it.

A line that cannot be read is told with its number, and the rest is read all the same.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import chain, islice, takewhile
from typing import Any, BinaryIO, NamedTuple

from relaygw.mail.suppression import Suppression
from relaygw.mail.words import printable
from relaygw.operations.suppression.forms import (
    POSTFIX,
    SES,
    Defaults,
    Form,
    Misread,
    Values,
    form_of,
    read_values,
)

MAX_LINE_BYTES = 65_536
_MOST_LINES = 10  # of one row with quoted fields
_HEAD_BYTES = 4096
_CHUNK_BYTES = 65_536
_DOCUMENT = re.compile(rb'\s*(?:\[|\{\s*"\w+"\s*:\s*\[)')
_BETWEEN = re.compile(r"[\s,]*")
_MAX_OBJECT = 1_048_576  # characters of one JSON object
_MAPPED = re.compile(r'((?:"(?:[^"\\]|\\.)*"|[^\s",])+)[\s,]*(.*)')  # an address, and the rest
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


_Record = tuple[int, Values | str]
"""The number of a line, and the fields that begin there or what is wrong with them."""


class UnknownForm(ValueError):
    """The beginning of a file is none of the known ones."""


class BadLine(NamedTuple):
    """A line that is no suppression, and why."""

    number: int
    problem: str


class _Line(NamedTuple):
    number: int
    text: str  # "" of one with a problem
    problem: str
    is_comment: bool
    has_address: bool  # as far as its bytes tell


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
    head = _beginning(stream)
    read = _read_json if head.lstrip()[:1] in (b"{", b"[") else _read_text
    return read(head, stream, defaults)


def _beginning(stream: BinaryIO) -> bytes:
    """Return the first lines of a file, or a part of a long one."""
    head = stream.read(_HEAD_BYTES)
    kind = next((what for magic, what in _BINARY if head.startswith(magic)), None)
    if kind is None and b"\0" in head.partition(b"\n")[0]:  # one further on spoils its line
        kind = "not text: its first line has a byte of 0"
    if kind is not None:
        raise UnknownForm(f"it is {kind}; {_EXPECTED}")
    return head.removeprefix(b"\xef\xbb\xbf") + stream.readline(MAX_LINE_BYTES + 1)


def _read_text(head: bytes, stream: BinaryIO, defaults: Defaults) -> Reading:
    lines = _lines(head, stream)
    unread: list[BadLine] = []
    for line in lines:
        if line.is_comment or not (line.problem or line.text.strip()):
            continue
        if not line.problem:
            form, records = _recognised(line, lines)
            return Reading(form.name, _entries(chain(unread, records), form, defaults))
        if not line.has_address or len(unread) >= _MOST_UNREAD:
            raise UnknownForm(f"line {line.number}: {line.problem}; {_EXPECTED}")
        unread.append(BadLine(line.number, line.problem))
    return Reading("unknown" if unread else "empty", iter(unread))


def _recognised(first: _Line, others: Iterator[_Line]) -> tuple[Form, Iterator[_Record]]:
    cells = _row([first])[0] or []
    names = [_name(cell) for cell in cells]
    headed = form_of(names)
    if headed is not None and "@" not in first.text:
        return headed, _rows(others, names)
    lines = chain([first], others)
    is_reason = len(cells) == 2 and cells[1].strip().upper() in ("BOUNCE", "COMPLAINT")
    if is_reason and "@" in cells[0]:
        return SES, _rows(lines, ("emailaddress", "reason"))
    if "@" not in first.text.split("#")[0]:
        shown = printable(first.text)[:80]
        raise UnknownForm(f"line {first.number}: {shown!r} is not known; {_EXPECTED}")
    return POSTFIX, _each((line for line in lines if not line.is_comment), _mapped)


def _read_json(head: bytes, stream: BinaryIO, defaults: Defaults) -> Reading:
    """Read objects: one a line, or those of the first array of a document."""
    shown = printable(head[:80].decode(errors="replace"))
    document = _DOCUMENT.match(head)
    if document is None:
        records = _each(_lines(head, stream), _object)
    else:
        records = _objects(head, document.end(), stream)
    begun: list[_Record] = []
    for number, fields in records:
        begun.append((number, fields))
        if not isinstance(fields, str):
            form = form_of(fields)
            if form is None:
                raise UnknownForm(f"line {number}: {shown!r} is not known; {_EXPECTED}")
            return Reading(form.name, _entries(chain(begun, records), form, defaults))
        if len(begun) > _MOST_UNREAD:
            break
    if not begun:
        return Reading("empty", iter(()))
    number, problem = begun[0]
    raise UnknownForm(f"line {number}: {shown!r} {problem}; {_EXPECTED}")


def _entries(
    records: Iterable[_Record], form: Form, defaults: Defaults
) -> Iterator[Suppression | BadLine]:
    for number, fields in records:
        if isinstance(fields, str):
            yield BadLine(number, fields)
            continue
        try:
            entry = read_values(form, fields, defaults)
        except Misread as error:
            yield BadLine(number, str(error))
        else:
            yield entry


# --- lines --------------------------------------------------------------------------------


def _lines(head: bytes, stream: BinaryIO) -> Iterator[_Line]:
    """Yield lines with their numbers; none takes more memory than MAX_LINE_BYTES."""
    limit = MAX_LINE_BYTES + 1
    begun = iter(partial(BytesIO(head).readline, limit), b"")
    pieces = chain(begun, iter(partial(stream.readline, limit), b""))
    for number, raw in enumerate(pieces, 1):
        text = problem = ""
        has_address = b"@" in raw
        if len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
            problem = _TOO_LONG
            for more in pieces:
                has_address = has_address or b"@" in more
                if more.endswith(b"\n"):
                    break
        else:
            try:
                text = raw.decode().rstrip("\r\n")
            except UnicodeDecodeError as error:
                wrong = f"byte {raw[error.start]:#04x} at {error.start}"
                problem = f"{wrong} is not UTF-8; expected UTF-8"
        yield _Line(number, text, problem, raw.startswith(b"#"), has_address)


def _each(lines: Iterable[_Line], read: Callable[[str], Values | str | None]) -> Iterator[_Record]:
    """Yield what each line says that is not empty; None is nothing."""
    for line in lines:
        fields = line.problem or (read(line.text) if line.text.strip() else None)
        if fields is not None:
            yield line.number, fields


def _mapped(text: str) -> Values | str | None:
    """Read an address, with an action of Postfix's access(5) or without one."""
    if text[0].isspace():  # continues the line before
        return None
    match = _MAPPED.match(text.strip())
    address, action = match.groups() if match else (text.strip(), "")
    if action and not _REFUSES.match(action):
        shown = printable(action)[:40]
        return f"{shown!r} does not refuse for good; expected REJECT, DISCARD or 5xx"
    if "@" not in address:
        return (
            f"{printable(address)[:80]!r} is not an address; expected user@example.com; "
            "recipients.block takes whole domains"
        )
    return {"address": address, "detail": action}


# --- CSV ----------------------------------------------------------------------------------


def _rows(lines: Iterator[_Line], names: Sequence[str]) -> Iterator[_Record]:
    """Yield rows. Those whose quotes do not fit are one line, the next line is read by itself."""
    ahead = list(islice(lines, _MOST_LINES))
    while ahead:
        number, taken = ahead[0].number, 1
        if ahead[0].problem:
            yield number, ahead[0].problem
        elif ahead[0].text.strip():
            cells, taken = _row(ahead)
            if cells is None:
                what = "quotes or line ends" if "\r" in ahead[0].text else "quotes"
                yield number, f"is not CSV: its {what} do not fit"
            elif len(cells) > len(names):
                what = f"has {len(cells)} fields; expected {len(names)}: {', '.join(names)}"
                yield number, what
            else:
                yield number, dict(zip(names, cells, strict=False))
        ahead = [*ahead[taken:], *islice(lines, taken)]


def _row(lines: Sequence[_Line]) -> tuple[list[str] | None, int]:
    """Return the fields of the row that lines begin with, None if it is none; how many it takes."""
    first = lines[0].text
    separator = ";" if ";" in first and "," not in first else ","
    texts = (f"{line.text}\n" for line in takewhile(lambda line: not line.problem, lines))
    rows = csv.reader(texts, delimiter=separator, strict=True)
    try:
        return next(rows), rows.line_num
    except csv.Error:
        return None, 1


def _name(heading: str) -> str:
    return re.sub(r"[\s_-]", "", heading).lower()


# --- JSON ---------------------------------------------------------------------------------


def _object(text: str) -> Values | str:
    try:
        return _values_of(json.loads(text))
    except (ValueError, RecursionError):
        return "is not JSON; expected one object per line"


def _values_of(found: Any) -> Values | str:
    if not isinstance(found, dict):
        return "is not an object; expected {...}"
    return {
        _name(str(key)): "" if value is None else str(value)
        for key, value in found.items()
        if not isinstance(value, (dict, list))
    }


def _objects(head: bytes, begin: int, stream: BinaryIO) -> Iterator[_Record]:
    """Yield the objects of an array that begins there; behind a broken one nothing is known."""
    chunks = chain([head[begin:]], iter(partial(stream.read, _CHUNK_BYTES), b""))
    texts = codecs.iterdecode(chunks, "utf-8", errors="surrogateescape")
    decoder, text, end = json.JSONDecoder(), "", 0
    number = 1 + head.count(b"\n", 0, begin)
    for more in chain(texts, [""]):
        text, end = text[end:] + more, 0
        while True:
            at = _BETWEEN.match(text, end).end()  # type: ignore[union-attr]  # it matches nothing, too
            number += text.count("\n", end, at)
            if text.startswith("]", at):
                return
            try:
                found, end = decoder.raw_decode(text, at)
            except (ValueError, RecursionError):
                end = at
                break
            yield number, _values_of(found)
            number += text.count("\n", at, end)
        if not more or len(text) - end > _MAX_OBJECT:
            what = "is not JSON" if more else "is not JSON, or the end of the file is missing"
            yield number, f"{what}; the rest of the file is not read"
            return
