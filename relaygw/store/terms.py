"""SQL conditions of search terms: for each field one, by the table whose rows it is about.

A term holds of a message when a row of one of these tables that belongs to it fulfils its
condition. Lists, bulk changes and searches over all mail take their conditions from here; captured
mail has those of its index beside them (`captured_index`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, TextClause, and_, exists, func, or_
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.mail_class import LOCAL_HOST
from relaygw.mail.result import Asked
from relaygw.mail.search import WAITING, Field, Term
from relaygw.mail.suppression import NULL_SENDER
from relaygw.store.database import Transaction
from relaygw.store.queue_tables import IS_OPEN, attempt, delivery, message, recipient
from relaygw.store.schema import has_text
from relaygw.store.side_tables import provider_event, verdict

Condition = ColumnElement[bool] | TextClause
_Make = Callable[[Term], Condition]

_A, _D, _M, _R = attempt.c, delivery.c, message.c, recipient.c
_EVENT, _V = provider_event.c, verdict.c
HOST = func.coalesce(_M.source_host, _M.source_client, LOCAL_HOST)
"""Where a message came from, as classes of mail name it."""
IS_LAST_WORD = (_V.queue_id == _R.queue_id) & (_V.rcpt_no == _R.rcpt_no)


def domain_of(address: ColumnElement[str]) -> ColumnElement[str]:
    """Return the text after the last @: the rest of it is cut off from the right."""
    local_part = func.rtrim(address, func.replace(address, "@", ""))
    return func.lower(func.substr(address, func.length(local_part) + 1))


def contains(tx: Transaction, text: ColumnElement[str], part: str) -> ColumnElement[bool]:
    """Return the condition that `part` stands in `text`, letter by letter."""
    find = func.instr if not tx.is_postgres else func.strpos
    return find(text, part) > 0


def _has(text: ColumnElement[Any]) -> _Make:
    return lambda term: has_text(text, term.text)


def _is(*columns: ColumnElement[Any]) -> _Make:
    return lambda term: or_(*(column == term.text for column in columns))


def _is_in_any_case(text: ColumnElement[Any]) -> _Make:
    return lambda term: func.lower(text) == term.text.lower()


def _has_sender(term: Term) -> Condition:
    return _M.sender == "" if term.text == NULL_SENDER else has_text(_M.sender, term.text)


def _has_recipient(term: Term) -> Condition:
    # hardly any has another address: to ask for one costs less than to look into none
    was_so = and_(_R.original.is_not(None), has_text(_R.original, term.text))
    return or_(has_text(_R.address, term.text), was_so)


def _has_client(term: Term) -> Condition:
    """Return the condition of a whole address, or of the beginning of one that ends with a sign."""
    begins = _M.source_client.startswith(term.text, autoescape=True)
    return begins if term.text[-1] in ".:" else _M.source_client == term.text


def _has_report(term: Term) -> Condition:
    is_its = (_EVENT.queue_id == _R.queue_id) & (_EVENT.rcpt_no == _R.rcpt_no)
    return exists().where(is_its, has_text(_EVENT.detail, term.text))


_has_reply = _has(_R.reply)
_CONDITIONS: dict[Field, dict[Table, _Make]] = {
    Field.FROM: {message: _has_sender},
    Field.SENDER_DOMAIN: {message: lambda term: domain_of(_M.sender) == term.text.lower()},
    Field.TO: {recipient: _has_recipient},
    Field.ADDRESSED: {message: _has_sender, recipient: _has_recipient},
    Field.DOMAIN: {recipient: lambda term: domain_of(_R.address) == term.text.lower()},
    Field.SUBJECT: {message: _has(_M.subject)},
    Field.MESSAGE_ID: {message: _has(_M.message_id)},
    Field.ORDER: {
        message: lambda term: or_(
            _M.link_value == term.text, func.lower(_M.link_value) == term.text.lower()
        )
    },
    Field.LISTENER: {message: _has(_M.source_listener)},
    Field.SCRIPT: {message: _has(_M.source_script)},
    Field.CLIENT: {message: _has_client},
    Field.CLIENT_OR_USER: {message: _is(_M.source_client, _M.source_user)},
    Field.USER: {message: _is_in_any_case(_M.source_user)},
    Field.HOST: {message: _is_in_any_case(HOST)},
    Field.UID: {message: lambda term: _M.source_uid == term.number},
    Field.LARGER: {message: lambda term: _M.size_bytes > term.number},
    Field.SMALLER: {message: lambda term: _M.size_bytes < term.number},
    Field.IS_UNREAD: {
        message: lambda _: and_(_M.captured_at_ms.is_not(None), _M.read_at_ms.is_(None))
    },
    Field.STATE: {
        delivery: lambda term: IS_OPEN if term.text == WAITING else _D.state == term.text
    },
    Field.PROVIDER: {
        delivery: _is(_D.provider), recipient: _is(_R.provider), attempt: _is(_A.provider)
    },
    Field.ROUTE: {delivery: _is(_D.route)},
    Field.STREAM: {delivery: _is(_D.stream)},
    Field.WAIT_REASON: {delivery: _has(_D.reason)},
    Field.REPLY: {recipient: _has_reply, attempt: _has(_A.reply)},
    Field.REPLY_OR_REPORT: {
        recipient: lambda term: or_(_has_reply(term), _has_report(term)), attempt: _has(_A.reply)
    },
    Field.REASON: {
        recipient: _has_reply, delivery: _has(_D.reason), provider_event: _has(_EVENT.detail)
    },
}  # fmt: skip


def on_rows(terms: Iterable[Term], *tables: Table) -> list[list[Condition]]:
    """Return conditions on rows of each table; a term counts for the first one that it is about."""
    found: dict[Table, list[Condition]] = {table: [] for table in tables}
    for term in terms:
        made = _CONDITIONS[term.field]
        table = next(table for table in tables if table in made)
        found[table].append(made[table](term))
    return list(found.values())


def on_message(term: Term) -> ColumnElement[bool]:
    """Return the condition that a term holds of a message, by any row of it but its attempts."""
    return or_(
        *(
            make(term) if table is message else some_row(table, make(term))
            for table, make in _CONDITIONS[term.field].items()
            if table is not attempt
        )
    )


def some_row(table: Table, *conditions: Condition) -> ColumnElement[bool]:
    """Return the condition that a message has a row in a table that fulfils conditions."""
    return exists().where(table.c.queue_id == _M.queue_id, *conditions).correlate(message)


def some(link: Condition, conditions: Sequence[Condition]) -> list[Condition]:
    """Return the condition that a linked row fulfils all of several, nothing without any."""
    return [exists().where(link, *conditions)] if conditions else []


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when, in ms of the database's clock; None has no end."""

    since_ms: int | None = None
    until_ms: int | None = None

    def holds(self, at_ms: ColumnElement[int]) -> Iterator[ColumnElement[bool]]:
        """Yield the conditions on a time."""
        if self.since_ms is not None:
            yield at_ms >= self.since_ms
        if self.until_ms is not None:
            yield at_ms <= self.until_ms


ALL_TIMES = Span()


def of_results(
    asked: Asked, span: Span
) -> Iterator[tuple[Table, ColumnElement[int], list[Condition]]]:
    """Yield the tables that tell of results, with their time and the conditions on their rows."""
    if asked.states:
        is_so = _R.state.in_(sorted(asked.states))
        yield recipient, _R.changed_at_ms, [is_so, *span.holds(_R.changed_at_ms)]
    if asked.kinds:
        yield verdict, _V.at_ms, [_V.kind.in_(sorted(asked.kinds)), *span.holds(_V.at_ms)]


def has_result(asked: Asked, span: Span) -> ColumnElement[bool]:
    """Return the condition on a recipient that it came to one of these results in a time."""
    return or_(
        *(
            and_(*holds) if table is recipient else exists().where(IS_LAST_WORD, *holds)
            for table, _, holds in of_results(asked, span)
        )
    )
