"""Searches for mail, in the words of Mailpit's search box; pure.

    order "on its way" -newsletter from:shop@ to:anna subject:"your order" is:unread
    has:attachment tag:checkout after:2026-01-31 before:2026-02-01T12:00 larger:100k

All terms must hold. A text is found anywhere in what is searched, in the middle of a word too,
whatever the case. `-` or `!` before a term turns it round. An unknown field is a word. A value that
a known one cannot have, and a term that is turned round and leaves nothing out, void the whole
search: it finds nothing, so that a mistake never finds, and deletes, everything.

Searches over all mail (`parse_find`) know more fields, and tell what they do not understand:

    anna.k@example is:bounced user:shop1 provider:ses after:2026-01-31

There a text is found where a word begins with it; its words are what `split_words` returns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from enum import StrEnum
from functools import partial

from relaygw.mail.result import ASKED
from relaygw.mail.search_values import read_size_bytes, read_time_ms
from relaygw.mail.search_words import split_words
from relaygw.mail.searchable_text import searchable
from relaygw.mail.state import DeliveryState

MAX_CHARACTERS = 1000
MAX_TERMS = 20  # a search that is longer finds nothing

_WORD = re.compile(r'(?:"[^"]*"?|[^\s"])+')
_TERM = re.compile(
    r'(?P<not>(?:[-!][^\w"]*+)?)(?P<field>[a-z-]+):(?P<value>.*)', re.DOTALL | re.IGNORECASE
)
_UID = re.compile(r"[0-9]{1,10}")
_LONE_STAR = re.compile(r"(?<!\*)\*(?!\*)")  # more of them stand in subjects: *****SPAM*****


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
    # searches over all mail
    USER = "user"
    LISTENER = "listener"
    CLIENT = "client"
    UID = "uid"
    SCRIPT = "script"
    HOST = "host"
    PROVIDER = "provider"
    ROUTE = "route"
    ORDER = "order"  # the value of web.link_header, whole
    OUTCOME = "outcome"  # is:bounced and the like, of a recipient
    STATE = "state"  # is:held and the like, of a delivery
    # selectors of lists that no search box knows
    SENDER_DOMAIN = "sender-domain"
    DOMAIN = "domain"  # of a recipient
    STREAM = "stream"
    CLIENT_OR_USER = "client-or-user"
    WAIT_REASON = "wait-reason"  # why a delivery is put off or held
    REPLY = "reply"
    REPLY_OR_REPORT = "reply-or-report"


_FIELDS = {
    field.value: field
    for field in (
        *(Field.FROM, Field.TO, Field.CC, Field.BCC, Field.REPLY_TO, Field.ADDRESSED),
        *(Field.SUBJECT, Field.MESSAGE_ID, Field.REASON, Field.TAG, Field.AFTER, Field.BEFORE),
        *(Field.LARGER, Field.SMALLER),
    )
}
_NAMES = (Field.PROVIDER, Field.ROUTE)  # of settings, in small letters
_MORE_FIELDS = {
    field.value: field
    for field in (
        *(Field.USER, Field.LISTENER, Field.CLIENT, Field.UID, Field.SCRIPT, Field.HOST),
        *(*_NAMES, Field.ORDER),
    )
}
WITH_WORDS = (
    *(Field.TEXT, Field.FROM, Field.TO, Field.ADDRESSED, Field.SUBJECT, Field.MESSAGE_ID),
    Field.ORDER,
)
"""Of all mail: what is found by the words of a message."""
_TIMES = (Field.AFTER, Field.BEFORE)
_SIZES = (Field.LARGER, Field.SMALLER)
WAITING = "waiting"
"""The state that stands for all in which mail is queued."""
OUTCOMES = tuple(ASKED)
_STATES = (
    *(state.value for state in DeliveryState if state is not DeliveryState.FINISHED),
    WAITING,
)
_Flag = tuple[Field, bool, str]  # its field, whether it means the opposite, the text of its term
_FLAGS: dict[str, _Flag] = {
    "is:read": (Field.IS_UNREAD, True, ""),
    "is:unread": (Field.IS_UNREAD, False, ""),
    "is:tagged": (Field.IS_TAGGED, False, ""),
    "has:attachment": (Field.HAS_ATTACHMENT, False, ""),
    "has:attachments": (Field.HAS_ATTACHMENT, False, ""),
    "has:inline": (Field.HAS_INLINE, False, ""),
    "has:inlines": (Field.HAS_INLINE, False, ""),
}
_MORE_FLAGS: dict[str, _Flag] = {
    **{f"is:{outcome}": (Field.OUTCOME, False, outcome) for outcome in OUTCOMES},
    **{f"is:{state}": (Field.STATE, False, state) for state in _STATES},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One condition of a search."""

    field: Field
    text: str = ""  # as `searchable` or, for TAG, `tag_key` returns it
    number: int = 0  # of AFTER and BEFORE: ms since the epoch; of LARGER and SMALLER: bytes
    is_negated: bool = False


def make_term(field: Field, value: str | int) -> Term:
    """Return the term that a field has this text or number."""
    if isinstance(value, int):
        return Term(field=field, number=value)
    return Term(field=field, text=value)


class SearchMistake(ValueError):
    """A search that cannot be made; `what` is wrong, `expected` would do."""

    def __init__(self, what: str, expected: str) -> None:
        super().__init__(f"{what}; {expected}")
        self.what = what
        self.expected = expected


@dataclass(frozen=True, slots=True, kw_only=True)
class MailSearch:
    """Which messages: all terms must hold; without any, all messages."""

    terms: tuple[Term, ...] = ()
    is_void: bool = False  # finds nothing
    mistake: SearchMistake | None = field(default=None, compare=False)  # why it is void


EVERYTHING = MailSearch()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Language:
    """What a search may say."""

    fields: Mapping[str, Field]
    flags: Mapping[str, _Flag]
    times: tuple[str, ...]  # examples
    is_of_words: bool  # each text has a letter or a digit


ReadTime = Callable[[str], int | None]
"""Returns a time in ms, None for what is none."""
_DATES = ("2026-01-31", "2026-01-31T12:00")
_OF_SANDBOX = _Language(fields=_FIELDS, flags=_FLAGS, times=_DATES, is_of_words=False)
_OF_ALL_MAIL = _Language(
    fields=_FIELDS | _MORE_FIELDS,
    flags=_FLAGS | _MORE_FLAGS,
    times=("today", "10:30", "7d", *_DATES),
    is_of_words=True,
)


def parse_search(text: str, *, tz: tzinfo = UTC) -> MailSearch:
    """Return the search in `text`; never raises. Dates without a zone are of `tz`."""
    try:
        return MailSearch(terms=_terms(text, partial(read_time_ms, tz=tz), _OF_SANDBOX))
    except SearchMistake as mistake:
        return MailSearch(is_void=True, mistake=mistake)


def parse_find(text: str, *, read_time: ReadTime | None = None) -> MailSearch:
    """Return the search of all mail in `text`; raises SearchMistake. An empty one finds all."""
    if "\0" in text or "\ufffd" in text:
        raise SearchMistake("the search is not valid text", "write it as UTF-8")
    for word in _WORD.findall(text[: MAX_CHARACTERS + 1]):
        if word.count('"') > 2:
            what = f"{word[:40]!r} has quotes within quotes"
            raise SearchMistake(what, "leave out the inner ones")
    read_time = read_time or partial(read_time_ms, tz=UTC)
    return MailSearch(terms=_terms(text, read_time, _OF_ALL_MAIL))


def _terms(text: str, read_time: ReadTime, language: _Language) -> tuple[Term, ...]:
    if len(text) > MAX_CHARACTERS:
        what = f"the search has {len(text):,} characters"
        raise SearchMistake(what, f"write at most {MAX_CHARACTERS:,}")
    found = (_term(word, read_time, language) for word in _WORD.findall(text))
    terms = tuple(term for term in found if term is not None)
    if len(terms) > MAX_TERMS:
        raise SearchMistake(f"the search has {len(terms)} terms", f"write at most {MAX_TERMS}")
    if text.strip() and not terms:
        raise SearchMistake("nothing in it can be looked for", "write letters or digits")
    return terms


def _term(word: str, read_time: ReadTime, language: _Language) -> Term | None:
    """Return the term of a word; None for punctuation between words. Raises SearchMistake."""
    term = _field_term(word, read_time, language) or _text_term(word, language)
    is_bare = not language.is_of_words and '"' not in word
    if term is not None and term.is_negated and is_bare and _LONE_STAR.search(term.text):
        # mostly no text has the star in it, so that all mail would be without it
        what = f"{word[:40]!r} has a *, which stands for itself"
        raise SearchMistake(what, "write a part of the text, or quotes around it")
    return term


def _field_term(word: str, read_time: ReadTime, language: _Language) -> Term | None:
    """Return the term of a word with a field; None for a word without a known one."""
    match = _TERM.fullmatch(word)
    if match is None:
        return None
    name, value = match["field"].lower(), match["value"].replace('"', " ").strip()
    field = language.fields.get(name)
    if field is None and name not in ("is", "has"):
        return None
    is_negated = bool(match["not"])
    if len(match["not"]) > 1:
        what = f"{word[:40]!r} has more than one sign before the field"
        raise SearchMistake(what, f"write -{name}:")
    if language.is_of_words and not match["value"] and not is_negated:
        return None  # a line of a header was pasted
    if field is not None:
        return _valued_term(field, value, read_time, language, is_negated=is_negated)
    flag = language.flags.get(f"{name}:{value.lower()}")
    if flag is None:
        what = f"{word.lstrip('-!')[:40]!r} is not known"
        raise SearchMistake(what, _known(name, language))
    return Term(field=flag[0], is_negated=flag[1] != is_negated, text=flag[2])


def _known(name: str, language: _Language) -> str:
    found = (flag for flag in language.flags if flag.startswith(f"{name}:"))
    return f"write one of {' '.join(found)}"


def _valued_term(
    field: Field, value: str, read_time: ReadTime, language: _Language, *, is_negated: bool
) -> Term:
    shown = f"{field.value}:{value[:40]}"
    if field in _TIMES:
        number, what = read_time(value), "is not a time"
        expected = f"write one like {' '.join(f'{field.value}:{time}' for time in language.times)}"
    elif field in _SIZES:
        number, what = read_size_bytes(value), "is not a size"
        expected = f"write {field.value}:100k or {field.value}:2M"
    elif field is Field.UID:
        number, what = (int(value) if _UID.fullmatch(value) else None), "is not a number"
        expected = "write uid:33"
    else:
        is_key = field is Field.TAG or not language.is_of_words
        key = searchable(value) if is_key else " ".join(value.split())
        key = key.lower() if field in _NAMES else key
        if not key:
            raise SearchMistake(f"'{field.value}:' names nothing", "write a text after the colon")
        if field is Field.CLIENT and "/" in value:
            expected = "write one address, or how it begins: client:10. client:2001:db8:"
            raise SearchMistake(f"{shown!r} is a network", expected)
        return Term(field=field, text=key, is_negated=is_negated)
    if number is None:
        raise SearchMistake(f"{shown!r} {what}", expected)
    return Term(field=field, number=number, is_negated=is_negated)


def _text_term(word: str, language: _Language) -> Term | None:
    is_negated = word[0] in "-!" and bool(word.strip(word[0]))  # not a dash between words, not !!!
    key = searchable(word[1:] if is_negated else word)
    is_text = any(letter.isalnum() or letter > "\x7f" for letter in key)
    if is_text and (split_words(key) or not language.is_of_words):
        return Term(field=Field.TEXT, text=key, is_negated=is_negated)
    if is_negated:
        raise SearchMistake(f"{word[:40]!r} leaves nothing out", "write letters or digits")
    return None
