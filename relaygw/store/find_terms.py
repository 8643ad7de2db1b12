"""Searches over all mail in SQL: what their terms say of messages and of their words, and the ways.

A way goes through mail, the newest first, in the order of a key; at places pages begin.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy import TextClause, and_, exists, false, func, or_, select, tuple_, union_all
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import FromClause, Select

from relaygw.mail.result import ASKED
from relaygw.mail.search import WAITING, WITH_WORDS, Field, MailSearch, Term
from relaygw.mail.search_words import link_word, split_words
from relaygw.mail.searchable_text import searchable
from relaygw.mail.state import RARE_RESULTS, RecipientState
from relaygw.mail.verdict import Kind
from relaygw.store.captured_index import condition_on_captured, contains
from relaygw.store.database import Transaction
from relaygw.store.queue_tables import (
    HAS_RARE_OUTCOME,
    IS_OPEN,
    captured_index,
    delivery,
    mail_search,
    message,
    recipient,
)
from relaygw.store.schema import has_text
from relaygw.store.side_tables import provider_event, verdict

_D, _M, _R, _V = delivery.c, message.c, recipient.c, verdict.c
_IS_ITS_PART = _D.queue_id == _M.queue_id
_IS_ITS_RECIPIENT = _R.queue_id == _M.queue_id
RARE = frozenset(
    word
    for word, (states, kinds) in ASKED.items()
    if states <= RARE_RESULTS and Kind.DELIVERED not in kinds
)
"""Words for outcomes that are few: an index lists them."""
Condition = ColumnElement[bool] | TextClause


def _some_recipient(*holds: Condition) -> ColumnElement[bool]:
    return exists().where(_IS_ITS_RECIPIENT, *holds).correlate(message)


def _some_part(*holds: Condition) -> ColumnElement[bool]:
    return exists().where(_IS_ITS_PART, *holds).correlate(message)


def _some_report(*holds: Condition) -> ColumnElement[bool]:
    is_its = provider_event.c.queue_id == _M.queue_id
    return exists().where(is_its, *holds).correlate(message)


def _same(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    return func.lower(column) == text.lower()


def _from(part: str) -> ColumnElement[bool]:
    return has_text(_M.sender, part)


def _to(part: str) -> ColumnElement[bool]:
    return _some_recipient(or_(has_text(_R.address, part), has_text(_R.original, part)))


def _client(text: str) -> ColumnElement[bool]:
    """Return the condition of a whole address, or of the beginning of one that ends with a sign."""
    begins = _M.source_client.startswith(text, autoescape=True)
    return begins if text[-1] in ".:" else _M.source_client == text


_OF_TEXT: dict[Field, Callable[[str], ColumnElement[bool]]] = {
    Field.FROM: _from,
    Field.TO: _to,
    Field.ADDRESSED: lambda part: or_(_from(part), _to(part)),
    Field.SUBJECT: partial(has_text, _M.subject),
    Field.MESSAGE_ID: partial(has_text, _M.message_id),
    Field.LISTENER: partial(has_text, _M.source_listener),
    Field.SCRIPT: partial(has_text, _M.source_script),
    Field.CLIENT: _client,
    Field.USER: partial(_same, _M.source_user),
    Field.HOST: partial(_same, _M.source_host),
    Field.PROVIDER: lambda name: or_(
        _some_part(_same(_D.provider, name)), _some_recipient(_same(_R.provider, name))
    ),
    Field.ROUTE: lambda name: _some_part(_same(_D.route, name)),
    Field.REASON: lambda part: or_(
        _some_recipient(has_text(_R.reply, part)),
        _some_part(has_text(_D.reason, part)),
        _some_report(has_text(provider_event.c.detail, part)),
    ),
    Field.ORDER: lambda value: or_(_M.link_value == value, _same(_M.link_value, value)),
    Field.STATE: lambda state: _some_part(IS_OPEN if state == WAITING else _D.state == state),
    Field.IS_UNREAD: lambda _: and_(_M.captured_at_ms.is_not(None), _M.read_at_ms.is_(None)),
}
_OF_NUMBER: dict[Field, Callable[[int], ColumnElement[bool]]] = {
    Field.UID: lambda uid: _M.source_uid == uid,
    Field.LARGER: lambda size_bytes: _M.size_bytes > size_bytes,
    Field.SMALLER: lambda size_bytes: _M.size_bytes < size_bytes,
}
_OF_CAPTURED = (
    *(Field.CC, Field.BCC, Field.REPLY_TO, Field.TAG, Field.IS_TAGGED, Field.HAS_ATTACHMENT),
    Field.HAS_INLINE,
)


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when, in ms of the database's clock; None has no end."""

    since_ms: int | None
    until_ms: int | None

    def holds(self, at_ms: ColumnElement[int]) -> Iterator[ColumnElement[bool]]:
        """Yield the conditions on a time."""
        if self.since_ms is not None:
            yield at_ms >= self.since_ms
        if self.until_ms is not None:
            yield at_ms <= self.until_ms


def span_of(tx: Transaction, search: MailSearch) -> Span:
    """Return the time that all terms about it leave."""
    since, until = [], []
    for term in search.terms:
        if term.field in (Field.AFTER, Field.BEFORE):
            at_ms = tx.to_stored(term.number)
            if (term.field is Field.AFTER) != term.is_negated:
                since.append(at_ms + term.is_negated)
            else:
                until.append(at_ms - term.is_negated)
    return Span(max(since, default=None), min(until, default=None))


def outcome_of(search: MailSearch) -> str | None:
    """Return the outcome that is looked for; the times of the search are its times."""
    found = (term for term in search.terms if term.field is Field.OUTCOME and not term.is_negated)
    return next((term.text for term in found), None)


@dataclass(frozen=True, slots=True)
class Words:
    """What has to stand in the words of a message, and what must not: phrases, words by a blank."""

    wanted: tuple[str, ...]
    unwanted: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.wanted or self.unwanted)

    def stand_in(self, words: str) -> bool:
        """True when they do, inside of words too."""
        return all(phrase in words for phrase in self.wanted) and not any(
            f" {phrase}" in words for phrase in self.unwanted
        )

    def begin_in(self, tx: Transaction, words: ColumnElement[str]) -> ColumnElement[bool]:
        """Return the condition that each begins with a word."""
        wanted = (contains(tx, words, f" {phrase}") for phrase in self.wanted)
        return and_(*wanted, *self._not_in(tx, words))

    def stand_in_sql(self, tx: Transaction, words: ColumnElement[str]) -> ColumnElement[bool]:
        """Return the condition that `stand_in` holds."""
        wanted = (contains(tx, words, phrase) for phrase in self.wanted)
        return and_(*wanted, *self._not_in(tx, words))

    def stand_inside(self, tx: Transaction, words: ColumnElement[str]) -> ColumnElement[bool]:
        """Return the condition that each is there, and one of them inside of a word only."""
        return and_(self.stand_in_sql(tx, words), ~self.begin_in(tx, words))

    def _not_in(self, tx: Transaction, words: ColumnElement[str]) -> Iterator[ColumnElement[bool]]:
        return (~contains(tx, words, f" {phrase}") for phrase in self.unwanted)

    def for_fts5(self) -> str:
        """Return the query of FTS5; a phrase is made of letters and digits alone."""
        return " AND ".join(f'"{phrase}"*' for phrase in _long(self.wanted))

    def for_postgres(self) -> str:
        """Return the tsquery; whether words stand side by side is looked at in what it finds."""
        pieces = []
        for phrase in self.wanted:
            *whole, last = phrase.split()
            pieces += [*(f"'{word}'" for word in whole), f"'{last}':*"]
        return " & ".join(_long(pieces, more=2))


def _long(texts: Sequence[str], more: int = 0) -> Sequence[str]:
    """Return those that few words begin with, all if there are none: an index is slow with them."""
    return [text for text in texts if len(text.removesuffix(":*")) > 2 + more] or texts


def words_in(search: MailSearch) -> Words:
    """Return the SQL condition of a search for words."""
    wanted, unwanted = [], []
    for term in search.terms:
        phrase = " ".join(split_words(term.text)) if term.field in WITH_WORDS else ""
        if term.field is Field.ORDER:
            phrase = link_word(term.text)
        if phrase and not term.is_negated:
            wanted.append(phrase)
        elif phrase and term.field is Field.TEXT:
            unwanted.append(phrase)
    return Words(tuple(dict.fromkeys(wanted)), tuple(dict.fromkeys(unwanted)))


def is_of_captured(search: MailSearch) -> bool:
    """True when a search finds captured mail alone."""
    return any(
        not term.is_negated and (term.field in (*_OF_CAPTURED, Field.IS_UNREAD) or _captured(term))
        for term in search.terms
    )


def _captured(term: Term) -> bool:
    return term.field is Field.OUTCOME and term.text == RecipientState.CAPTURED.value


def conditions(tx: Transaction, search: MailSearch, span: Span) -> list[ColumnElement[bool]]:
    """Return the conditions on `message` of all terms that are no words."""
    outcome = outcome_of(search)
    found: list[ColumnElement[bool]] = []
    if outcome is None:
        found += span.holds(_M.accepted_at_ms)
    for term in search.terms:
        if term.field in (Field.TEXT, Field.AFTER, Field.BEFORE):
            continue
        holds = _condition(tx, term, span if term.text == outcome else Span(None, None))
        # what is not known is not so
        found.append(~func.coalesce(holds, false()) if term.is_negated else holds)
    return found


def _condition(tx: Transaction, term: Term, span: Span) -> ColumnElement[bool]:
    if term.field in _OF_CAPTURED:
        folded = term.text if term.field is Field.TAG else searchable(term.text)
        holds = condition_on_captured(tx, replace(term, text=folded))
        return _M.queue_id.in_(select(captured_index.c.queue_id).where(holds))
    if term.field is Field.OUTCOME:
        states, kinds = ASKED[term.text]
        has_ended = _some_recipient(_R.state.in_(sorted(states)), *span.holds(_R.changed_at_ms))
        if not kinds:
            return has_ended
        is_told = (_V.kind.in_(sorted(kinds)), *span.holds(_V.at_ms))
        was_told = exists().where(_V.queue_id == _M.queue_id, *is_told).correlate(message)
        return or_(has_ended, was_told) if states else was_told
    if term.field in _OF_NUMBER:
        return _OF_NUMBER[term.field](term.number)
    return _OF_TEXT[term.field](term.text)


def open_states(search: MailSearch) -> list[Condition] | None:
    """Return the SQL condition for open deliveries; None if the search is not limited to them."""
    for term in search.terms:
        if term.field is Field.STATE and not term.is_negated and term.text != "deleted":
            return [IS_OPEN] if term.text == WAITING else [IS_OPEN, _D.state == term.text]
    return None


@dataclass(frozen=True, slots=True)
class Ends:
    """Where rows with a rare outcome are, their time, and what holds of those at that time."""

    source: FromClause
    at_ms: ColumnElement[int]
    queue_id: ColumnElement[str]
    where: Sequence[Condition] = ()


def rare_outcome(outcome: str, span: Span) -> Ends:
    """Return where recipients with a rare outcome at that time are found."""
    states, kinds = ASKED[outcome]
    ways = [
        Ends(recipient, _R.changed_at_ms, _R.queue_id, [HAS_RARE_OUTCOME, _R.state == state])
        for state in sorted(states)
    ]
    ways += [Ends(verdict, _V.at_ms, _V.queue_id, [_V.kind == kind]) for kind in sorted(kinds)]
    ways = [replace(way, where=[*way.where, *span.holds(way.at_ms)]) for way in ways]
    if len(ways) == 1:
        return ways[0]
    # one by one, as each index has its own in the order of time
    rows = [
        select(way.at_ms.label("at_ms"), way.queue_id.label("queue_id")).where(*way.where)
        for way in ways
    ]
    both = union_all(*rows).subquery("ended")
    return Ends(both, both.c.at_ms, both.c.queue_id)


# --- ways ----------------------------------------------------------------------------------

_S = mail_search.c
Key = tuple[Any, ...]
_MAX_PLACE = 60
_IS_KEY = {int: re.compile(r"-?[0-9]{1,18}"), str: re.compile(r"[A-Z0-9]{1,20}")}
_KEYS: dict[str, tuple[type, ...]] = {
    "unwritten": (str,),
    "outcome": (int, str),
    "open": (str,),
    "captured": (int, str),
    "newest": (str,),
    **dict.fromkeys(("words", "index", "read", "inside"), (int,)),
}
"""The steps of searches, and what they go down by."""


class NoPlace(ValueError):
    """What a page is to begin after is not a position in a search."""


def read_place(before: str) -> tuple[str, Key | None]:
    """Return the step and the key at which a page begins; raises NoPlace."""
    if not before:
        return "", None
    step, *parts = before.split(".")
    kinds = _KEYS.get(step, ())
    is_place = bool(kinds) and len(parts) in (0, len(kinds)) and len(before) < _MAX_PLACE
    pairs = list(zip(kinds, parts, strict=False))
    if not is_place or not all(_IS_KEY[kind].fullmatch(part) for kind, part in pairs):
        raise NoPlace(f"{before[:40]!r} is not a position in a search")
    return step, tuple(kind(part) for kind, part in pairs) or None


@dataclass(frozen=True, slots=True)
class Walk:
    """Rows in the order of a key, the greatest first."""

    step: str
    source: FromClause
    keys: tuple[ColumnElement[Any], ...]
    queue_id: ColumnElement[str]
    where: Sequence[Condition]

    def place(self, key: Key | None) -> str:
        """Return the SQL condition of a page that goes on after a key."""
        return ".".join([self.step, *map(str, key or ())])

    def rows(self, after: Key | None, last: Key | None = None) -> Select[Any]:
        """Return the rows after a key, to the last one: their keys and queue ids."""
        query = select(*self.keys, self.queue_id).select_from(self.source).where(*self.where)
        if after is not None:
            query = query.where(
                tuple_(*self.keys) < tuple_(*after) if after[1:] else self.keys[0] < after[0]
            )
        if last is not None:
            query = query.where(
                tuple_(*self.keys) >= tuple_(*last) if last[1:] else self.keys[0] >= last[0]
            )
        return query.order_by(*(column.desc() for column in self.keys))

    def end(self, tx: Transaction, after: Key | None, size: int) -> tuple[Key, str] | None:
        """Return the last key of about so many rows, and a message there; None: no more follow."""
        if self.source is not mail_search:
            found = tx.execute(self.rows(after).offset(size - 1).limit(1)).first()
            return None if found is None else (tuple(found[:-1]), found[-1])
        # its numbers follow one another: nothing has to be read
        last = (after[0] if after else greatest(tx) + 1) - size
        found = tx.execute(self.rows((last,)).limit(1)).first()
        return None if found is None else ((last,), found[1])


def newest(step: str, where: Sequence[Condition] = ()) -> Walk:
    """Return the way through the words of the newest messages."""
    return Walk(step, mail_search, (_S.search_no,), _S.queue_id, where)


def greatest(tx: Transaction) -> int:
    """Return the number of the newest message whose words are written, 0 without any."""
    return tx.execute(select(func.max(_S.search_no))).scalar() or 0
