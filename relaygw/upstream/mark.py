"""Our mark of a mail, and the field that its provider reports it from.

A mark tells providers nothing, and whoever shares the key reads the queue id: it is a keyed hash of
the id, and the id hidden by what the hash is the start of. Nobody else makes one, the same mail
always has the same one, and recipients who see it learn nothing. It stands as it is in every place
that providers have: A-Z a-z 0-9 - _.

It is merged into what stands in the field. Nothing else of that changes: what is added stands on
lines of its own, where the form has white space. A field that cannot be read, or that would be more
than its service takes, is left alone, and the mail goes without a mark.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import time
from binascii import b2a_base64
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import blake2b
from typing import NamedTuple

from relaygw.mail.content import HeaderField, header_end, header_fields
from relaygw.settings.events import mark_field_of
from relaygw.settings.presets import MarkField
from relaygw.settings.provider import Provider

KEY = "mark"
"""The name of the key that the instances of a queue share."""
NAME = "relaygw"
"""What the mark is called among the tags and variables of a provider."""
_TAG_BYTES = 12
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_MAX_ID_BYTES = 32
_FORM = re.compile(r"[A-Za-z0-9_-]{17,59}")
_QUEUE_ID = re.compile(rb"[A-Z0-9]{1,32}")


class Marks:
    """Makes and reads the marks of one queue."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def mark_of(self, queue_id: str) -> str:
        """Return the mark of a message."""
        raw = queue_id.encode("ascii")
        tag = self._tag(raw)
        told = b2a_base64(tag + self._hidden(tag, raw), newline=False)
        return told.rstrip(b"=").translate(_URL_SAFE).decode()

    def read(self, mark: str) -> str | None:
        """Return the queue id that a mark was made of, None for what is no mark of this queue."""
        if _FORM.fullmatch(mark) is None or len(mark) % 4 == 1:
            return None
        told = base64.urlsafe_b64decode(mark + "=" * (-len(mark) % 4))
        tag, hidden = told[:_TAG_BYTES], told[_TAG_BYTES:]
        raw = self._hidden(tag, hidden)
        is_ours = hmac.compare_digest(tag, self._tag(raw))
        return raw.decode() if is_ours and _QUEUE_ID.fullmatch(raw) else None

    # keyed BLAKE2 is a MAC of its own (RFC 7693), and costs a third of an HMAC

    def _tag(self, raw: bytes) -> bytes:
        return blake2b(raw, digest_size=_TAG_BYTES, key=self._key, person=b"tag").digest()

    def _hidden(self, tag: bytes, raw: bytes) -> bytes:
        """Return `raw` hidden, or what was hidden shown again."""
        size = len(raw)
        cover = blake2b(tag, digest_size=_MAX_ID_BYTES, key=self._key, person=b"cover").digest()
        number = int.from_bytes(raw) ^ int.from_bytes(cover[:size])
        return number.to_bytes(size)


# --- its field -----------------------------------------------------------------------------

_BLANK = re.compile(r"[ \t\r\n]*")
_FOLD = "\r\n "
_SHORT = 900  # characters that fit on one line with the name of the field
_TAG = re.compile(rf"{NAME}(?<![^\s,]{NAME})[ \t]*=[^,\r\n]*")  # what begins with a word is quick
_PAIR = re.compile(rf"{NAME}(?<![^\s|]{NAME})[ \t]*:[^|\r\n]*")


class Mark(NamedTuple):
    """A mail's mark, and the field for it."""

    field: MarkField
    token: str
    queue_id: str
    untold: Callable[[str, str], None]  # is told which mail goes without its mark, and why


Marked = tuple[bytes, tuple[int, int] | None]
"""A whole line to put in front of the header, and the field it stands for, if there is one."""


class _Unreadable(Exception):
    """Why a field cannot be merged into, in words behind its name."""


def put_mark(mark: Mark, header: bytes, removed: Sequence[tuple[int, int]]) -> Marked | None:
    """Return the mark for mail with this header, less the `removed` ranges, or None."""
    place = mark.field
    # nearly all mail has none, not in the first lines of a text either, if it has no header: a look
    # through all fields costs ten times this one
    if _key_of(place.header) in header[: header.find(b"\r\n\r\n")].lower():
        end = header_end(header)
        gone = {start for start, _ in removed}
        for field in header_fields(header, 0, end, names={place.header.lower()}):
            if field.start not in gone:
                return _merged(mark, header, field)
    if place.most_of is not None and _are_too_many(mark, header, removed):
        return None
    whole = f"{place.header}: {_MERGES[place.form]('', mark)}\r\n"
    return whole.encode("ascii"), None


@cache
def _key_of(name: str) -> bytes:
    return name.lower().encode("ascii")


def _merged(mark: Mark, header: bytes, field: HeaderField) -> Marked | None:
    """Return a field with the mark in it; None, and that is told, where it cannot be."""
    value = header[field.value_start : field.value_end].decode("latin-1")
    try:
        merged = _MERGES[mark.field.form](value, mark)
        _check_length(merged, mark.field)
    except _Unreadable as error:
        mark.untold(mark.queue_id, f"its {mark.field.header} {error}")
        return None
    # what stands before the value may be a name in another case, and a blank
    line = header[field.start : field.value_start] + merged.encode("latin-1") + b"\r\n"
    return line, (field.start, field.end)


def _check_length(value: str, field: MarkField) -> None:
    """Raise _Unreadable for a value that is longer than the service takes, unfolded."""
    if field.max_bytes is not None and len(value.replace("\r\n", "")) > field.max_bytes:
        raise _Unreadable(f"would have more than {field.max_bytes} bytes with the mark")


def _are_too_many(mark: Mark, header: bytes, removed: Sequence[tuple[int, int]]) -> bool:
    """Return whether the service takes no more fields of the kind; that is told."""
    assert mark.field.most_of is not None
    prefix, most = mark.field.most_of
    header = header[: header_end(header)]
    key = prefix.lower().encode("ascii")
    if header.lower().count(key) < most:
        return False
    gone = {start for start, _ in removed}
    fields = (
        header_field for header_field in header_fields(header) if header_field.start not in gone
    )
    if sum(field.name.lower().startswith(key) for field in fields) < most:
        return False
    mark.untold(mark.queue_id, f"it has {most} fields {prefix}… and the service takes no more")
    return True


def _text(_: str, mark: Mark) -> str:
    return mark.token


def _tags(value: str, mark: Mark) -> str:
    return _listed(value, f"{NAME}={mark.token}", _TAG, ",")


def _pairs(value: str, mark: Mark) -> str:
    if value.strip().startswith("{"):
        return _json(value, mark)
    return _listed(value, f"{NAME}:{mark.token}", _PAIR, "|")


def _listed(value: str, entry: str, known: re.Pattern[str], separator: str) -> str:
    """Return a list of entries with this one, in the place of one of its name."""
    if known.search(value):
        return known.sub(entry, value, count=1)
    before = value.rstrip().rstrip(separator).rstrip()
    return f"{before}{separator}{_FOLD}{entry}" if before else entry


# --- JSON, changed in its text: numbers and escapes of the rest stay as they were written


class _Key(NamedTuple):
    name: str
    start: int  # of its value
    end: int


def _json(value: str, mark: Mark) -> str:
    entry = f'"{NAME}":"{mark.token}"'
    inside = mark.field.inside
    if not value.strip():
        return f'{{"{inside}":{{{entry}}}}}' if inside else f"{{{entry}}}"
    try:
        start = _behind_blanks(value, 0)
        keys, end = _object(value, start)
        if value[end:].strip():
            raise ValueError
        if inside is None:
            return _with_entry(value, start, keys, mark.token)
        place = next((key for key in keys if key.name == inside), None)
        if place is None:
            return _insert(value, start, f'"{inside}":{{{entry}}}', is_first=not keys)
        return _with_entry(value, place.start, _object(value, place.start)[0], mark.token)
    except (ValueError, IndexError, RecursionError):
        raise _Unreadable("is no JSON object that every program reads alike") from None


def _object(text: str, at: int) -> tuple[list[_Key], int]:
    """Return the keys of the object that begins here, and its end. Raises ValueError."""
    keys: list[_Key] = []
    _expect(text, at, "{")
    at = _behind_blanks(text, at + 1)
    while keys or text[at] != "}":
        _expect(text, at, '"')
        name, at = _decode(text, at)
        at = _behind_blanks(text, at)
        _expect(text, at, ":")
        start = _behind_blanks(text, at + 1)
        _, end = _decode(text, start)
        keys.append(_Key(name, start, end))
        at = _behind_blanks(text, end)
        if text[at] == "}":
            break
        _expect(text, at, ",")
        at = _behind_blanks(text, at + 1)
    if len({key.name for key in keys}) < len(keys):
        raise ValueError("a key stands twice")
    return keys, at + 1


def _expect(text: str, at: int, sign: str) -> None:
    if text[at] != sign:
        raise ValueError(f"no {sign}")


def _behind_blanks(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _with_entry(text: str, start: int, keys: Sequence[_Key], token: str) -> str:
    known = next((key for key in keys if key.name == NAME), None)
    if known is None:
        return _insert(text, start, f'"{NAME}":"{token}"', is_first=not keys)
    return f'{text[: known.start]}{_FOLD}"{token}"{text[known.end :]}'


def _insert(text: str, start: int, entry: str, *, is_first: bool) -> str:
    """Return the text with an entry right behind the brace at `start`; no line gets longer."""
    before, rest = text[: start + 1], text[start + 1 :]
    comma = "" if is_first else ","
    if "\r\n" not in text and len(text) + len(entry) < _SHORT:
        return f"{before}{entry}{comma}{rest}"
    is_folded = rest.lstrip(" \t").startswith("\r\n")  # some take a line of blanks for the end
    return f"{before}{_FOLD}{entry}{comma}{'' if is_folded else _FOLD}{rest}"


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


_decode = json.JSONDecoder(strict=False, parse_constant=_refuse_constant).raw_decode
_MERGES: dict[str, Callable[[str, Mark], str]] = {
    "text": _text,
    "json": _json,
    "tags": _tags,
    "pairs": _pairs,
}


# --- marking ----------------------------------------------------------------------------


_TELL_EACH_S = 3600.0


def marking_of(
    name: str, provider: Provider, marks: Marks | None, note: Callable[[str], None]
) -> Marking | None:
    """Return the marker for the mail of a provider, None for one that reports nothing."""
    field = mark_field_of(provider)
    if field is None or marks is None:
        return None
    return Marking(name, field, marks, note)


class Marking:
    """Marks the mail of one provider."""

    def __init__(
        self, name: str, field: MarkField, marks: Marks, note: Callable[[str], None]
    ) -> None:
        self._name = name
        self._field = field
        self._marks = marks
        self._note = note
        self._told_at_s = float("-inf")

    def mark(self, queue_id: str) -> Mark:
        """Return the mark of a message."""
        return Mark(self._field, self._marks.mark_of(queue_id), queue_id, self._tell)

    def _tell(self, queue_id: str, why: str) -> None:
        """Say now and then that mail goes without its mark."""
        if time.monotonic() - self._told_at_s > _TELL_EACH_S:
            self._told_at_s = time.monotonic()
            self._note(
                f"warning: {queue_id} goes to provider {self._name} without the mark that its "
                f"events are found by: {why}; correct it where the mail is made (told once an hour)"
            )
