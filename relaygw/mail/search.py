"""Searches for captured mail, in the words of Mailpit's search box; pure.

    order "on its way" -newsletter from:shop@ to:anna subject:"your order" is:unread
    has:attachment tag:checkout after:2026-01-31 before:2026-02-01T12:00 larger:100k

All terms must hold. A text is found anywhere in what is searched, in the middle of a word too,
whatever the case. `-` or `!` before a term turns it round. What is not understood is a word, and
what cannot be looked for finds nothing, so that a mistake never finds, and deletes, everything.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum

MAX_CHARACTERS = 1000
MAX_TERMS = 20  # a search that is longer finds nothing

# what Mailpit puts a blank for, and what SQL or UTF-8 would stumble over
_BETWEEN_WORDS = re.compile(r'[\s\x00-\x1f\x7f-\x9f<>",;()\ud800-\udfff]+')
# soft hyphens, joiners and marks of direction: nobody sees them, newsletters are full of them
_UNSEEN = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]+")
_WORD = re.compile(r'(?:"[^"]*"?|[^\s"])+')
_TERM = re.compile(r"(?P<not>[-!]?)(?:(?P<field>[a-z-]+):)?(?P<value>.+)", re.DOTALL | re.I)


class Field(StrEnum):
    """What a term looks at; the values are what stands before the colon."""

    TEXT = ""  # subject, addresses, Message-ID, words of the body, names of attachments
    FROM = "from"
    TO = "to"
    CC = "cc"
    BCC = "bcc"  # recipients of the envelope that To and Cc do not name
    REPLY_TO = "reply-to"
    ADDRESSED = "addressed"  # any of the five above
    SUBJECT = "subject"
    MESSAGE_ID = "message-id"
    REASON = "reason"  # why it was captured
    TAG = "tag"  # the whole tag
    AFTER = "after"  # captured at this time or later
    BEFORE = "before"  # captured at this time or earlier
    LARGER = "larger"  # than so many bytes
    SMALLER = "smaller"
    IS_UNREAD = "is:unread"
    IS_TAGGED = "is:tagged"
    HAS_ATTACHMENT = "has:attachment"
    HAS_INLINE = "has:inline"


_FIELDS = {field.value: field for field in Field if field is not Field.TEXT}
_TIMES = (Field.AFTER, Field.BEFORE)
_SIZES = (Field.LARGER, Field.SMALLER)
_FLAGS = {
    "is:read": (Field.IS_UNREAD, True),
    "is:unread": (Field.IS_UNREAD, False),
    "is:tagged": (Field.IS_TAGGED, False),
    "has:attachment": (Field.HAS_ATTACHMENT, False),
    "has:attachments": (Field.HAS_ATTACHMENT, False),
    "has:inline": (Field.HAS_INLINE, False),
    "has:inlines": (Field.HAS_INLINE, False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One condition of a search."""

    field: Field
    text: str = ""  # as `searchable` or, for TAG, `tag_key` returns it
    number: int = 0  # of AFTER and BEFORE: ms since the epoch; of LARGER and SMALLER: bytes
    is_negated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MailSearch:
    """Which captured messages: all terms must hold; without any, all messages."""

    terms: tuple[Term, ...] = ()
    is_void: bool = False  # too long, or nothing but punctuation: finds nothing


EVERYTHING = MailSearch()


def searchable(text: str) -> str:
    """Return text as it is stored and looked for: folded case, one blank between words."""
    folded = unicodedata.normalize("NFC", _UNSEEN.sub("", text).casefold())
    return _BETWEEN_WORDS.sub(" ", unicodedata.normalize("NFC", folded.casefold())).strip()


tag_key = searchable  # returns what two spellings of one tag have in common


def parse_search(text: str, *, tz: tzinfo = UTC) -> MailSearch:
    """Return what `text` asks for; never raises. Dates without a zone are of `tz`."""
    if len(text) > MAX_CHARACTERS:
        return MailSearch(is_void=True)
    terms = tuple(_terms(text, tz))
    is_void = len(terms) > MAX_TERMS or bool(text.strip() and not terms)
    return MailSearch(is_void=True) if is_void else MailSearch(terms=terms)


def _terms(text: str, tz: tzinfo) -> Iterator[Term]:
    for word in _WORD.findall(text):
        term = _field_term(word, tz) or _text_term(word)
        if term is not None:
            yield term


def _field_term(word: str, tz: tzinfo) -> Term | None:
    """Return the term of a word with a field; None when it is not understood as one."""
    match = _TERM.fullmatch(word)
    if match is None or match["field"] is None:
        return None
    is_negated = bool(match["not"])
    name, value = match["field"].lower(), match["value"].replace('"', " ").strip()
    flag = _FLAGS.get(f"{name}:{value.lower()}")
    if flag is not None:
        return Term(field=flag[0], is_negated=flag[1] != is_negated)
    field = _FIELDS.get(name)
    if field is None:
        return None
    if field in _TIMES or field in _SIZES:
        number = read_time_ms(value, tz) if field in _TIMES else read_size_bytes(value)
        return None if number is None else Term(field=field, number=number, is_negated=is_negated)
    key = tag_key(value) if field is Field.TAG else searchable(value)
    return Term(field=field, text=key, is_negated=is_negated) if key else None


def _text_term(word: str) -> Term | None:
    is_negated = word[0] in "-!" and len(word) > 1
    key = searchable(word[1:] if is_negated else word)
    if not any(letter.isalnum() or letter > "\x7f" for letter in key):
        return None  # a dash between two words
    return Term(field=Field.TEXT, text=key, is_negated=is_negated)


# --- times and sizes as people write them -----------------------------------------------------

_EPOCH = datetime.fromtimestamp(0, UTC)
_UNIX_S = re.compile(r"[0-9]{9,10}")
_UNIX_MS = re.compile(r"[0-9]{12,13}")
_FORMATS = (
    "%Y",
    "%Y-%m",
    "%Y/%m/%d",
    "%m/%d/%Y",  # as Mailpit reads it
    "%d.%m.%Y",
    "%d %b %Y",
    "%d %B %Y",
    "%b %d %Y",
    "%B %d %Y",
)
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?(?:([kmg])(?:i?b)?|b)?", re.IGNORECASE)
_FACTORS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def read_time_ms(text: str, tz: tzinfo) -> int | None:
    """Return a date or an epoch in ms, of `tz` if it names no zone; None if it is none."""
    if _UNIX_S.fullmatch(text):
        return int(text) * 1000
    if _UNIX_MS.fullmatch(text):
        return int(text)
    at = _read_date(text)
    if at is None:
        return None
    try:
        return ((at if at.tzinfo is not None else at.replace(tzinfo=tz)) - _EPOCH) // timedelta(
            milliseconds=1
        )
    except (OverflowError, ValueError):  # the first or the last day that there is
        return None


def _read_date(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        words = " ".join(text.replace(",", " ").split())
    for form in _FORMATS:
        try:
            return datetime.strptime(words, form)
        except ValueError:
            continue
    return None


def read_size_bytes(text: str) -> int | None:
    """Return a size such as `100k` or `1.5 MB` in bytes; None if it is none, or nothing."""
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    return int(float(match[1]) * _FACTORS[(match[2] or "").lower()]) or None
