"""What mail is found by: the table of selectors, and searches as people make them.

The options of the command line, the fields of the pages and the parameters of the API come from
here. Who reads values refuses an empty one: it is never "any". A search over all mail is made of a
text, a result and times; beside what it found stands what was looked at.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from functools import partial
from typing import Any

from relaygw.mail.attempt_state import PUT_OFF, AttemptState
from relaygw.mail.clock import DAY_MS, clock_ms, rfc3339_or_none, utc_text, utc_time
from relaygw.mail.result import ASKED, asked_for
from relaygw.mail.search import (
    WITH_WORDS,
    Field,
    MailSearch,
    SearchMistake,
    Term,
    make_term,
    parse_find,
)
from relaygw.mail.search_values import read_time_ms
from relaygw.mail.state import OPEN, DeliveryState
from relaygw.operations.queue_object import queue_object
from relaygw.settings.section import parse_duration, parse_interval
from relaygw.store.find import Found
from relaygw.store.selection import Selection
from relaygw.store.store import Store

ANY_STATE = frozenset(DeliveryState)
ALL = "all"
"""Stands among the words of a selector for all of them."""
CHOICES = {
    "state": (*(state.value for state in DeliveryState), ALL),
    "result": tuple(ASKED),
    "attempt": (*(state.value for state in PUT_OFF), ALL),
}
"""What a selector of kind CHOICE takes."""
MAX_UID_DIGITS = 10


class Kind(StrEnum):
    """How a value is read, and compared."""

    PART = "part"  # a text, found anywhere, in any case
    WHOLE = "whole"  # a text, compared whole
    CHOICE = "choice"  # one of CHOICES of its name; may be repeated
    AGE = "age"
    TIME = "time"  # see read_moment
    NUMBER = "number"
    ID = "id"  # may be repeated


@dataclass(frozen=True, slots=True)
class Selector:
    """Something that messages are selected by."""

    name: str
    kind: Kind
    help: str
    field: Field | None = None  # of the term that it is
    label: str = ""  # of the field of a page; none: it has no plain field
    example: str = ""

    @property
    def is_repeated(self) -> bool:
        """True where several values may be given."""
        return self.kind in (Kind.CHOICE, Kind.ID)


_K = Kind
_ROWS = (
    Selector("id", _K.ID, "Queue id; repeatable."),
    Selector(
        "sender", _K.PART, "Envelope sender contains TEXT; <> is the null sender.",
        field=Field.FROM, label="Sender contains", example="shop@example.com, or <>",
    ),
    Selector(
        "recipient", _K.PART, "A recipient contains TEXT.",
        field=Field.TO, label="A recipient contains",
    ),
    Selector(
        "subject", _K.PART, "Subject contains TEXT.", field=Field.SUBJECT, label="Subject contains"
    ),
    Selector("state", _K.CHOICE, "State of a delivery; repeatable."),
    Selector("result", _K.CHOICE, f"Outcome of a recipient; repeatable: {', '.join(ASKED)}."),
    Selector("attempt", _K.CHOICE, "Outcome of an attempt that put mail off; repeatable."),
    Selector(
        "domain", _K.WHOLE, "A recipient's domain is exactly TEXT.",
        field=Field.DOMAIN, label="A recipient's domain is", example="example.com",
    ),
    Selector(
        "sender_domain", _K.WHOLE, "Envelope sender's domain is exactly TEXT.",
        field=Field.SENDER_DOMAIN, label="Sender's domain is", example="shop.example",
    ),
    Selector(
        "provider", _K.WHOLE,
        "Last provider tried (with a result or an attempt: its provider) is exactly TEXT.",
        field=Field.PROVIDER, label="Provider is",
    ),
    Selector("route", _K.WHOLE, "Route is exactly TEXT.", field=Field.ROUTE, label="Route is"),
    Selector("stream", _K.WHOLE, "Stream is exactly TEXT.", field=Field.STREAM, label="Stream is"),
    Selector(
        "client", _K.WHOLE, "Client address or user is exactly TEXT.",
        field=Field.CLIENT_OR_USER, label="Client or user is",
    ),
    Selector(
        "host", _K.WHOLE, "Host or client that sent it is exactly TEXT; local: sendmail here.",
        field=Field.HOST, label="Host is",
    ),
    Selector(
        "uid", _K.NUMBER, "User ID of the local program is N.",
        field=Field.UID, label="User ID is",
    ),
    Selector(
        "script", _K.PART, "Script that sent it contains TEXT.",
        field=Field.SCRIPT, label="Script contains", example="checkout.php",
    ),
    Selector(
        "since", _K.TIME, "Accepted since T (with a result: ended, with an attempt: tried): today, "
        "10:30, 2h, 7d, a date.",
        label="Since", example="today, 10:30, 2h, 2026-11-27",
    ),
    Selector(
        "until", _K.TIME, "Accepted or ended until T; a day means its end.",
        label="Until", example="yesterday, 10:30, 2h, 2026-11-27",
    ),
    Selector(
        "older_than", _K.AGE, "Accepted longer ago than AGE: 30s, 5m, 4h, 7d.",
        label="Older than", example="30m, 4h, 7d",
    ),
    Selector(
        "reason", _K.PART, "Reason of a delay or hold contains TEXT.",
        field=Field.WAIT_REASON, label="Reason contains", example="timed out",
    ),
    Selector(
        "reply", _K.PART,
        "Last reply for a recipient, or with a result what was reported since, contains TEXT.",
        field=Field.REPLY, label="Last reply contains",
    ),
)  # fmt: skip
SELECTORS = {selector.name: selector for selector in _ROWS}
"""By name, in the order of the command line's help."""


TIMES = "today, 10:30, 2026-11-27, or an age like 2h or 7d"
"""What `read_moment` reads, for people."""
_CLOCK = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?")
_DAYS_AGO = {"today": 0, "yesterday": 1}
_DAY = timedelta(days=1)
_MS = timedelta(milliseconds=1)


def read_moment(
    text: str, *, now_ms: int, is_end: bool = False, tz: tzinfo | None = None
) -> int | None:
    """Return a time in ms that is given as a date, a time of today or an age; None if it is none.

    Without a zone it is of `tz`, None: that of this machine. `is_end`: a day means its last moment.
    """
    word, now = text.strip().lower(), utc_time(now_ms).astimezone(tz)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    clock = _CLOCK.fullmatch(word)
    if word in _DAYS_AGO:
        day: datetime | None = midnight - _DAYS_AGO[word] * _DAY
    elif clock is not None:
        hour, minute, second = (int(part or 0) for part in clock.groups())
        return _epoch_ms(midnight.replace(hour=hour, minute=minute, second=second), tz)
    else:
        day = _read_day(word)
    if day is not None:
        return _epoch_ms(day + _DAY, tz) - 1 if is_end else _epoch_ms(day, tz)
    try:
        return now_ms - int(parse_duration(word) * 1000)
    except ValueError:
        return read_time_ms(text.strip(), now.tzinfo or UTC)


def read_end(text: str, *, now_ms: int, tz: tzinfo | None = None) -> int:
    """Return a time to come in ms: the next 18:00, `2h` from now, the end of a day.

    Raises ValueError, which continues the text. Without a zone it is of `tz`, None: the machine's.
    """
    with contextlib.suppress(ValueError):
        return now_ms + int(parse_interval(text) * 1000)
    at_ms = read_moment(text, now_ms=now_ms, is_end=True, tz=tz)
    if at_ms is not None and at_ms <= now_ms and _CLOCK.fullmatch(text):
        at_ms = read_moment(text, now_ms=now_ms + DAY_MS, tz=tz)
    if at_ms is None:
        raise ValueError("is not a time")
    if at_ms <= now_ms:
        raise ValueError("is over already")
    return at_ms


def _read_day(word: str) -> datetime | None:
    try:
        return datetime.strptime(word, "%Y-%m-%d")
    except ValueError:
        return None


def _epoch_ms(at: datetime, tz: tzinfo | None) -> int:
    """Return a time of a zone, that of summer in summer."""
    try:
        return (at.replace(tzinfo=tz).astimezone(UTC) - utc_time(0)) // _MS
    except (OverflowError, ValueError):  # the first or the last day that there is
        return 0


def read_value(
    name: str, text: str, *, now_ms: int, tz: tzinfo | None = None
) -> str | int | float | None:
    """Return the value of a selector that takes one, None for a text that is none.

    A time in ms, an age in seconds, a number; other texts stay as they are. See read_moment.
    """
    kind = SELECTORS[name].kind
    if kind is Kind.TIME:
        return read_moment(text, now_ms=now_ms, is_end=name == "until", tz=tz)
    if kind is Kind.NUMBER:
        is_number = text.isascii() and text.isdigit() and len(text) <= MAX_UID_DIGITS
        return int(text) if is_number else None
    if kind is Kind.AGE:
        with contextlib.suppress(ValueError):
            return parse_duration(text)
        return None
    return text


def misplaced(name: str, word: str) -> str:
    """Return the selector that a word is for, which was given for another one; "" for none."""
    if word in CHOICES[name]:
        return ""
    return next((other for other, words in CHOICES.items() if word in words), "")


def is_newest_first(selection: Selection) -> bool:
    """True for what is listed with the newest first unless somebody wants it the other way.

    What waits is shown as Postfix's mailq shows it, what is over as Mailpit does.
    """
    if selection.queue_ids:
        return False
    return not selection.is_of_acceptance or not selection.states <= OPEN


def selection_of(
    values: Mapping[str, Any], *, default_states: frozenset[DeliveryState], now_ms: int
) -> Selection:
    """Return the search for what all of these values select.

    By name: texts, and numbers for `uid`; `id`, `state`, `result` and `attempt` are sequences,
    `older_than` is in seconds, `since` and `until` are in ms. With ids, results or attempts every
    state is meant unless some are given, else `default_states`.
    """
    states = values.get("state", ())
    results, verdicts = asked_for(values.get("result", ()))
    attempts = values.get("attempt", ())
    reply = Field.REPLY_OR_REPORT if verdicts else Field.REPLY
    terms = (
        make_term(reply if selector.field is Field.REPLY else selector.field, values[name])
        for name, selector in SELECTORS.items()
        if selector.field is not None and name in values
    )
    is_ended = "id" in values or results or verdicts or attempts
    if ALL in states or (is_ended and not states):
        found = ANY_STATE
    else:
        found = frozenset(map(DeliveryState, states)) or default_states
    older_than_s = values.get("older_than")
    return Selection(
        queue_ids=tuple(values.get("id", ())),
        states=found,
        results=results,
        verdicts=verdicts,
        attempts=frozenset(PUT_OFF if ALL in attempts else map(AttemptState, attempts)),
        since_ms=values.get("since"),
        until_ms=values.get("until"),
        accepted_before_ms=None if older_than_s is None else now_ms - int(older_than_s * 1000),
        terms=tuple(terms),
    )


# --- searches over all mail ----------------------------------------------------------------

LOOKED_AT = "queue ids, addresses, subjects, Message-IDs and providers' ids"
_FEW_WAITING = 2_000  # these are looked at themselves


def search_of(
    text: str, result: str = "", since: str = "", until: str = "", *, tz: tzinfo | None = UTC
) -> MailSearch:
    """Return the search that a text, a result and times make; raises SearchMistake.

    Times without a zone are of `tz`: see read_moment.
    """
    read_time = partial(read_moment, now_ms=clock_ms(), tz=tz)
    terms = list(parse_find(text, read_time=read_time).terms)
    if result:
        terms.append(Term(field=Field.OUTCOME, text=result))
    for field, given in ((Field.AFTER, since), (Field.BEFORE, until)):
        if given:
            at_ms = read_time(given, is_end=field is Field.BEFORE)
            if at_ms is None:
                raise SearchMistake(f"{given[:40]!r} is not a time", f"write {TIMES}")
            terms.append(Term(field=field, number=at_ms))
    return MailSearch(terms=tuple(terms))


def found_object(store: Store, search: MailSearch, *, limit: int, before: str) -> dict[str, Any]:
    """Return a page of what a search finds, in the form of JSON; raises NoPlace."""
    found = store.find.find(search, limit=limit, before=before)
    return {
        "messages": list(map(queue_object, found.entries)),
        "next": found.next or None,
        "looked": looked_words(store, found, search),
        "until": rfc3339_or_none(found.until_ms),
    }


def looked_words(store: Store, found: Found, search: MailSearch) -> str:
    """Return the mail that a search has looked at and has not: beside its results, or nothing."""
    texts = [term.text for term in search.terms if term.field is Field.TEXT]
    parts = [f"searched {LOOKED_AT} of" if texts else "looked at"]
    parts[0] += " all mail, in every state"
    if found.until_ms is not None:
        parts[0] = parts[0].replace("all mail", f"mail since {utc_text(found.until_ms)}")
        parts.append("for older mail open the next page, or add a word")
    if found.read_inside:
        parts.append(f"inside words: the newest {found.read_inside:,} messages")
    parts += [
        f"{text} is a word here; for times: after:, before:"
        for text in texts
        if text.startswith(("since:", "until:", "on:", "date:"))
    ]
    return "; ".join([*parts, *unfinished(store, search)])


def unfinished(store: Store, search: MailSearch) -> Iterator[str]:
    """Yield what cannot be searched yet, and will be."""
    if not any(term.field in WITH_WORDS for term in search.terms):
        return
    progress = store.find.progress()
    if progress.older_than_ms is not None:
        since = utc_text(progress.older_than_ms)
        yield f"mail from before {since} is still being indexed"
    if progress.waiting > _FEW_WAITING:
        yield f"{progress.waiting:,} new messages are still being indexed"
