"""JSON that strangers wrote: values by type and size, and what an event takes of them.

Each function takes any value and raises nothing: what is not what it should be is None, empty or
an empty text. Texts come out on one line, without NUL and lone surrogates, which no database takes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NoReturn

from relaygw.feedback.format import MARK, MARK_HEADER, MAX_RAW

Members = dict[str, Any]

_EPOCH = datetime.fromtimestamp(0, UTC)
_LAST_MS = 32_503_680_000_000  # the year 3000
_OF_THE_SENDER = frozenset({"5.1.7", "5.1.8", "5.1.9"})  # or of a server
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_ADDRESS = re.compile(r"[^\s<>@,;]{1,256}@[^\s<>@,;]{1,255}")
_NAMED = re.compile(r"<([^<>]+)>\s*")
_STATUS = re.compile(  # alone, behind a reply code or in brackets: others may be version numbers
    r"(?:^|\b[245]\d\d[ -]#?|[(\[#])([245]\.\d{1,3}\.\d{1,3})(?![\d.]*\d)", re.ASCII
)
_MARK_IN_TEXT = re.compile(
    rf"{MARK}[\"']?\s*[=:]\s*[\"']?([A-Za-z0-9_.-]{{8,128}})(?![A-Za-z0-9_.-])"
)
_MARK = re.compile(r"[A-Za-z0-9_.-]{8,128}")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def parse(data: bytes | str) -> Any:
    """Return the value of a JSON text; None if it is invalid, too deep, or not UTF-8."""
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None


def members(value: object) -> Members:
    """Return an object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def objects(body: bytes) -> list[Members]:
    """Return the objects of a list, or the one that stands alone."""
    held = parse(body)
    return list(map(members, held if isinstance(held, list) else [held]))


def listed(value: object) -> list[Any]:
    """Return an array; an empty one for anything else."""
    return value if isinstance(value, list) else []


def words(value: object, limit: int = 500) -> str:
    """Return a text or a number on one line; "" for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if abs(value) < 1 << 64 else ""
    if not isinstance(value, str):
        return ""
    return _UNPRINTABLE.sub(" ", value[: limit * 2]).strip()[:limit]


def first(*values: object) -> str:
    """Return the first of some values that has words."""
    return next(filter(None, map(words, values)), "")


def detail_of(kinds: str, said: str) -> str:
    """Return the kind of trouble and its text, as far as either is known."""
    return ": ".join(filter(None, (kinds, said)))


def address(value: object) -> str | None:
    """Return an address, also of `Name <address>`; None for what is none."""
    if not isinstance(value, str) or len(value) > 1000:
        return None
    named = _NAMED.search(value)
    bare = (named[1] if named else value).strip()
    return bare if _ADDRESS.fullmatch(bare) and not _UNPRINTABLE.search(bare) else None


def addresses(values: object) -> list[str]:
    """Return the addresses in an array, each once."""
    return list(dict.fromkeys(filter(None, map(address, listed(values)))))


def seconds_ms(value: object) -> int | None:
    """Return a time in seconds, or in milliseconds where it cannot be seconds."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,9})?", value, re.ASCII):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _LAST_MS:
        return None
    # a millisecond at least: 0 stands for no time
    return int(value if value > _LAST_MS / 1000 else round(value * 1000)) or None


def iso_ms(value: object) -> int | None:
    """Return a time in ISO 8601; without a zone it is UTC."""
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        at = datetime.fromisoformat(value.strip())
        at_ms = int(((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH).total_seconds() * 1000)
    except (ValueError, OverflowError):
        return None
    return at_ms if 0 < at_ms < _LAST_MS else None


def status(*values: object) -> str | None:
    """Return the first enhanced status (RFC 3463) in some values."""
    found = (_STATUS.search(words(value, 2000)) for value in values)
    return next((match[1] for match in found if match), None)


def says_no_address(dsn: str | None) -> bool:
    """True for 5.1.x: the address does not work (RFC 3463); some of them are about the sender."""
    return dsn is not None and dsn.startswith("5.1.") and dsn not in _OF_THE_SENDER


def bare_id(value: object) -> str | None:
    """Return an id without angle brackets."""
    return words(value).removeprefix("<").removesuffix(">").strip() or None


def mark(value: object) -> str | None:
    """Return a mark that stands alone in a value."""
    return value if isinstance(value, str) and _MARK.fullmatch(value) else None


def mark_within(value: object) -> str | None:
    """Return a mark that stands among other things: `relaygw=…`, `relaygw:…` or as JSON."""
    match = _MARK_IN_TEXT.search(words(value, 10_000))
    return match[1] if match else None


def _header_fields(values: object) -> Iterator[tuple[str, str]]:
    """Yield `{"name":, "value":}` of an array, names in lower case."""
    for each in map(members, listed(values)):
        yield words(each.get("name")).lower(), words(each.get("value"), 10_000)


def field_of(values: object, name: str) -> str | None:
    """Return the first header field of a name, which is in lower case; None without any."""
    return next((value for each, value in _header_fields(values) if each == name), None)


def marked_field(values: object) -> str | None:
    """Return the mark in the first header field of ours."""
    return mark(field_of(values, MARK_HEADER))


def key_of(*parts: object) -> str:
    """Return a short text that is the same for the same parts."""
    text = json.dumps([None if part is None else str(part) for part in parts])
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def raw_of(value: object) -> str:
    """Return a piece of a report as JSON in ASCII, cut where it is too long."""
    try:
        return cut(json.dumps(value, separators=(",", ":")))
    except (ValueError, RecursionError):
        return ""


def cut(text: str) -> str:
    """Return as much of a text as is kept."""
    return text if len(text) <= MAX_RAW else f"{text[:MAX_RAW]}…"
