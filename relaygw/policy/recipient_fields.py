"""Header fields that name recipients to a provider: who may be named there.

Services read addresses in fields of their own (settings/recipient_fields.yaml), and what one passes
on may be read by the next: all fields of all services count at every provider. Outside of
production mode, and when released, mail goes without them. In production a field with recipients of
its own keeps its mail here when one of them is blocked; one that only repeats the envelope, or says
where notices go, is left out. Pure; linear in the size of the header.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header
from functools import cache
from typing import Any, NamedTuple

from relaygw.errors import InvalidAddress
from relaygw.mail.address_list import read_addresses
from relaygw.mail.content import header_end, header_fields
from relaygw.settings.recipient_fields import RecipientField, recipient_fields

_LOWER = bytes(range(256)).lower()
_NOT_LETTERS = bytes(byte for byte in range(256) if not (byte < 128 and chr(byte).isalnum()))
_JSON_START = re.compile(rb"""\s*+(?:\[\s*+[\[\]{"]|\{\s*+["}])""")  # `[Shop] Jo <a@b>` is a name
_MAX_SHOWN = 100  # characters of an address in a reason
_MAX_ENCODED_BYTES = 78  # of a name: a line with encoded words is no longer (RFC 2047 section 2)
_EMPTY_PATH = (b"", b"<>")


@dataclass(frozen=True, slots=True)
class FieldsFound:
    """What a look at a header came to."""

    removed: tuple[tuple[int, int], ...] = ()  # from where to where these fields stand, in order
    names: tuple[str, ...] = ()  # of what is removed, each once
    why: str = ""  # they are removed
    obstacle: str | None = None  # why the mail may not be sent at all


NOTHING = FieldsFound()


class _Found(NamedTuple):
    field: RecipientField
    value: bytes
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class FieldRule:
    """What holds for the fields of one mail: none is sent, or none that names somebody blocked."""

    why: str = "mode unknown"
    is_blocked: Callable[[str], bool] | None = None  # None: none is sent

    def look(self, header: bytes) -> FieldsFound:
        """Return the parts of the header at the start of `header` that may not be sent."""
        found = list(_found_in(header))
        if not found:
            return NOTHING
        if self.is_blocked is not None:
            return _screened(found, self.is_blocked)
        counts = Counter(occurrence.field.name for occurrence in found)
        removed = [
            occurrence
            for occurrence in found
            if counts[occurrence.field.name] > 1 or not _is_harmless(occurrence)
        ]
        return _removing(removed, self.why)


NO_FIELDS = FieldRule()  # for mail of which nobody said what holds for it


def _screened(found: Sequence[_Found], is_blocked: Callable[[str], bool]) -> FieldsFound:
    removed, why = [], ""
    for occurrence in found:
        trouble = _trouble(occurrence, is_blocked)
        if trouble is None:
            continue
        if occurrence.field.carries == "recipients":
            return FieldsFound(obstacle=f"field {occurrence.field.name} {trouble}")
        removed.append(occurrence)
        why = why or trouble
    return _removing(removed, why)


def _removing(found: Sequence[_Found], why: str) -> FieldsFound:
    return FieldsFound(
        removed=tuple((occurrence.start, occurrence.end) for occurrence in found),
        names=tuple(dict.fromkeys(occurrence.field.name for occurrence in found)),
        why=why,
    )


# --- finding the fields


@cache
def _by_name() -> Mapping[bytes, tuple[RecipientField, ...]]:
    """Return the fields by their names, written as `_plain` does."""
    table: defaultdict[bytes, tuple[RecipientField, ...]] = defaultdict(tuple)
    for service in recipient_fields().values():
        for field in service.fields:
            table[_plain(field.name.encode())] += (field,)
    return dict(table)


def _plain(name: bytes) -> bytes:
    """Return the letters and digits of a name: what a lenient program might compare."""
    return name.translate(_LOWER, _NOT_LETTERS)


def _found_in(header: bytes) -> Iterator[_Found]:
    """Yield the fields of the table, those that only a lenient program takes for one, too."""
    table = _by_name()
    end = header_end(header)
    at = 0
    for field in header_fields(header, 0, end):
        if field.start > at:
            yield from _in_stray_lines(header, at, field.start)
        at = field.end
        known = table.get(_plain(field.name)) or (
            table.get(_plain(_decoded(field.name)))
            if b"=?" in field.name and len(field.name) <= _MAX_ENCODED_BYTES
            else None
        )
        if known is not None:
            value = header[field.value_start : field.value_end]
            yield from _chosen(known, value, field.start, field.end)
    if end > at:
        yield from _in_stray_lines(header, at, end)


def _in_stray_lines(header: bytes, start: int, end: int) -> Iterator[_Found]:
    """Yield the fields among lines that are none by RFC 5322: a name with 8-bit bytes or spaces."""
    for match in re.finditer(rb"[^\r\n]++(?:\r\n[ \t][^\r\n]*+)*+(?:\r\n)?", header[start:end]):
        name, colon, value = match[0].partition(b":")
        known = _by_name().get(_plain(name)) if colon else None
        if known is not None:
            yield from _chosen(known, value, start + match.start(), start + match.end())


def _chosen(
    known: Sequence[RecipientField], value: bytes, start: int, end: int
) -> Iterator[_Found]:
    is_json = _JSON_START.match(value) is not None
    fitting = [field for field in known if is_json or not field.json_only]
    if fitting:
        field = next(
            (recipient_field for recipient_field in fitting if recipient_field.json_only),
            fitting[0],
        )
        yield _Found(field, value, start, end)


def _decoded(name: bytes) -> bytes:
    """Return a name with its encoded words (RFC 2047) decoded."""
    try:
        parts = decode_header(name.decode("latin-1"))
    except (HeaderParseError, ValueError):
        return name
    return b"".join(part.encode("latin-1") if isinstance(part, str) else part for part, _ in parts)


# --- what they say


def _is_harmless(found: _Found) -> bool:
    """True for JSON of which all is known, and none of it names anybody."""
    field = found.field
    values = _json(found.value) if field.harmless else None
    if not isinstance(values, dict):
        return False
    return all(
        key in field.harmless
        or (
            isinstance(value, dict) and {f"{key}.{inner}" for inner in value} <= set(field.harmless)
        )
        for key, value in values.items()
    )


def _trouble(found: _Found, is_blocked: Callable[[str], bool]) -> str | None:
    """Return why a field may not pass a block list, None if it may."""
    addresses = [] if found.field.form == "url" else _addresses(found)
    try:
        blocked = next((address for address in addresses or () if is_blocked(address)), None)
    except InvalidAddress:
        addresses = None
    if addresses is None:
        return "cannot be read, and may name a recipient on recipients.block"
    return None if blocked is None else f"names {blocked[:_MAX_SHOWN]}, on recipients.block"


def _addresses(found: _Found) -> list[str] | None:
    """Return the addresses in a field, None if it is not sure that these are all."""
    if found.field.form == "addresses":
        return _listed(found.value)
    values = _json(found.value)
    if values is None:
        return None
    addresses = []
    for path in found.field.addresses:
        texts = _at(values, path.split("."), is_inner=False)
        listed = None if texts is None else [_listed(text.encode()) for text in texts]
        if listed is None or None in listed:
            return None
        addresses += [address for some in listed if some for address in some]
    return addresses


def _listed(value: bytes) -> list[str] | None:
    if value.strip() in _EMPTY_PATH:
        return []
    addresses, is_clean = read_addresses(value)
    return [address.decode() for address in dict.fromkeys(addresses)] if is_clean else None


def _json(value: bytes) -> Any | None:
    """Return JSON with its keys in lower case; None unless every program reads it in one way."""
    try:
        return json.loads(
            value.replace(b"\r\n", b"").decode("utf-8"), object_pairs_hook=_mapping, strict=False
        )
    except (ValueError, RecursionError):
        return None


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = {key.lower(): value for key, value in pairs}
    if len(values) != len(pairs):
        raise ValueError("a key stands twice")
    return values


def _at(values: Any, path: Sequence[str], *, is_inner: bool) -> list[str] | None:
    """Return the texts at a path, lists looked through; None if anybody is named in another way."""
    if isinstance(values, list):
        found = [_at(value, path, is_inner=is_inner) for value in _members(values)]
        return None if None in found else [text for some in found if some for text in some]
    if not path:
        return [values] if isinstance(values, str) else None
    if not isinstance(values, dict):
        return None
    if path[0] in values:
        return _at(values[path[0]], path[1:], is_inner=True)
    return None if is_inner and len(path) == 1 else []


def _members(values: list[Any]) -> Iterator[Any]:
    """Yield what is in a list that is no list, in order, however deep they stand in each other."""
    waiting: list[Any] = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += reversed(value)
        else:
            yield value
