"""What the terms of a search over all mail say together: its time, its outcome, its conditions."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import false, func, or_, select
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.result import ASKED
from relaygw.mail.search import WAITING, Field, MailSearch, Term
from relaygw.mail.searchable_text import searchable
from relaygw.mail.state import RARE_RESULTS, RecipientState
from relaygw.mail.verdict import Kind
from relaygw.store.captured_search import on_captured
from relaygw.store.database import Transaction
from relaygw.store.queue_tables import IS_OPEN, captured_index, delivery, message
from relaygw.store.terms import ALL_TIMES, Condition, Span, of_results, on_message, some_row

RARE = frozenset(
    word
    for word, (states, kinds) in ASKED.items()
    if states <= RARE_RESULTS and Kind.DELIVERED not in kinds
)
"""Words for outcomes that are few: an index lists them."""
_OF_CAPTURED = (
    *(Field.CC, Field.BCC, Field.REPLY_TO, Field.TAG, Field.IS_TAGGED, Field.HAS_ATTACHMENT),
    Field.HAS_INLINE,
)


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
        found += span.holds(message.c.accepted_at_ms)
    for term in search.terms:
        if term.field in (Field.TEXT, Field.AFTER, Field.BEFORE):
            continue
        holds = _condition(tx, term, span if term.text == outcome else ALL_TIMES)
        # what is not known is not so
        found.append(~func.coalesce(holds, false()) if term.is_negated else holds)
    return found


def _condition(tx: Transaction, term: Term, span: Span) -> ColumnElement[bool]:
    if term.field in _OF_CAPTURED:
        folded = term.text if term.field is Field.TAG else searchable(term.text)
        holds = on_captured(tx, replace(term, text=folded))
        return message.c.queue_id.in_(select(captured_index.c.queue_id).where(holds))
    if term.field is not Field.OUTCOME:
        return on_message(term)
    results = of_results(ASKED[term.text], span)
    return or_(*(some_row(table, *holds) for table, _, holds in results))


def open_states(search: MailSearch) -> list[Condition] | None:
    """Return the SQL condition for open deliveries; None if the search is not limited to them."""
    for term in search.terms:
        if term.field is Field.STATE and not term.is_negated and term.text != "deleted":
            return [IS_OPEN] if term.text == WAITING else [IS_OPEN, delivery.c.state == term.text]
    return None
