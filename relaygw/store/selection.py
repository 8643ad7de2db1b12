"""Which messages an operator means, and their ids in the order of acceptance.

Open ones are found by their index, so that a page of a long queue costs a look at a page; finished
ones, nearly all, are never looked at. Rare results, captured mail and what an attempt put off have
indexes of their own, delivered mail is walked through by its ids, which grow with time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, or_, select, union
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.attempt_state import AttemptState
from relaygw.mail.queue_id import CLOCKS_MS, first_id_at
from relaygw.mail.result import Asked
from relaygw.mail.search import Term
from relaygw.mail.state import OPEN, RARE_RESULTS, DeliveryState, RecipientState
from relaygw.mail.verdict import Kind
from relaygw.store.batches import rows_in
from relaygw.store.database import Transaction
from relaygw.store.queue_tables import (
    HAS_PUT_OFF,
    HAS_RARE_OUTCOME,
    IS_OPEN,
    attempt,
    delivery,
    message,
    recipient,
)
from relaygw.store.terms import (
    ALL_TIMES,
    Condition,
    Span,
    has_result,
    on_message,
    on_rows,
    some,
    some_row,
)
from relaygw.store.walk import Walk, captured, ended

MAX_TEXT_CHARACTERS = 1000  # of a text that is looked for: far below what SQLite takes as a pattern

_CAPTURED = frozenset({RecipientState.CAPTURED})
_A, _D, _M, _R = attempt.c, delivery.c, message.c, recipient.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which messages: every condition set must hold, and each term.

    With `results` and `verdicts` terms on a recipient and the provider hold for one of those who
    came to one of them, and `since_ms` and `until_ms` are about that time; with `attempts` all
    these are about one of those, which may be repeated ones; else times are about acceptance.
    """

    queue_ids: tuple[str, ...] = ()
    terms: tuple[Term, ...] = ()
    states: frozenset[DeliveryState] = OPEN
    results: frozenset[RecipientState] = frozenset()
    verdicts: frozenset[Kind] = frozenset()  # last words that were reported since
    attempts: frozenset[AttemptState] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None
    accepted_before_ms: int | None = None

    @property
    def is_of_acceptance(self) -> bool:
        """True where the times are those of acceptance."""
        return not (self.results or self.verdicts or self.attempts)

    @property
    def is_of_few(self) -> bool:
        """True where an index of what is rare lists what is looked for."""
        is_rare = self.results <= RARE_RESULTS | _CAPTURED and Kind.DELIVERED not in self.verdicts
        return bool(self.attempts or ((self.results or self.verdicts) and is_rare))

    @property
    def asked(self) -> Asked:
        """The results that are looked for."""
        return Asked(self.results, self.verdicts)


def delivery_conditions(tx: Transaction, selection: Selection) -> list[Condition]:
    """Return the conditions on deliveries and their messages of a selection by acceptance."""
    found = [_D.queue_id.in_(selection.queue_ids)] if selection.queue_ids else []
    (walk,) = _walks(tx, selection)
    return [*found, *walk.where]


def message_conditions(tx: Transaction, selection: Selection) -> list[Condition]:
    """Return the conditions on messages, by their terms and acceptance, in whatever state."""
    return [*_accepted_before(tx, selection), *map(on_message, selection.terms)]


def _accepted_before(tx: Transaction, selection: Selection) -> list[Condition]:
    before_ms = selection.accepted_before_ms
    return [] if before_ms is None else [_M.accepted_at_ms < tx.to_stored(before_ms)]


def _state_conditions(selection: Selection) -> Iterator[Condition]:
    if selection.states != frozenset(DeliveryState):
        yield _D.state.in_([state.value for state in selection.states])
    if selection.states <= OPEN:
        yield IS_OPEN


def _walks(tx: Transaction, selection: Selection) -> Iterator[Walk]:
    """Yield walks that lead to what is selected, but for its ids."""
    terms, states = selection.terms, list(_state_conditions(selection))
    span = Span(tx.to_stored(selection.since_ms), tx.to_stored(selection.until_ms))
    if selection.attempts:
        tries, people, parts, more = on_rows(terms, attempt, recipient, delivery, message)
        if selection.results or selection.verdicts:
            people.append(has_result(selection.asked, ALL_TIMES))
        tries += [HAS_PUT_OFF, _A.state.in_(sorted(selection.attempts))]
        tries += Span(since_ms=span.since_ms).holds(_A.at_ms)
        tries += Span(until_ms=span.until_ms).holds(_A.since_ms)
        tries += [*some(IS_TRIED_FOR, people), *some(_IS_ITS_TRY, [*parts, *states])]
        walks = [Walk(attempt, (ATTEMPTED_ID,), ATTEMPTED_ID, tries)]
    elif selection.is_of_acceptance:
        parts, people, more = on_rows(terms, delivery, recipient, message)
        more += [
            *span.holds(_M.accepted_at_ms),
            *(some_row(recipient, person) for person in people),
        ]
        walks = [Walk(delivery, (_D.queue_id,), _D.queue_id, [*states, *parts])]
    else:
        people, parts, more = on_rows(terms, recipient, delivery, message)
        people += [*some(IS_ITS_RECIPIENT, parts), *some(_D.queue_id == _R.queue_id, states)]
        walks = list(_ended(selection, span, people))
    more += _accepted_before(tx, selection)
    yield from (walk.of(more) for walk in walks)


def _ended(selection: Selection, span: Span, people: list[Condition]) -> Iterator[Walk]:
    """Yield the walks through recipients that came to the results of a selection."""
    asked = selection.asked
    if asked.states and asked.kinds and not selection.is_of_few:
        # through all recipients in the order of ids, which is short: most are what is looked for
        yield Walk(recipient, (_R.queue_id,), _R.queue_id, [has_result(asked, span), *people])
        return
    if asked.states == _CAPTURED:
        is_captured = _R.state == RecipientState.CAPTURED.value
        found = [some_row(recipient, is_captured, *people)] if people else []
        yield captured(span).of(found)
        asked = Asked(kinds=asked.kinds)
    yield from ended(asked, span, people)


def _id_range(selection: Selection, queue_id: ColumnElement[str]) -> Iterator[ColumnElement[bool]]:
    """Yield what times say of ids: what was accepted later ended later, too."""
    if selection.since_ms is not None and selection.is_of_acceptance:
        yield queue_id >= first_id_at(selection.since_ms - CLOCKS_MS)
    ends_ms = (selection.until_ms, selection.accepted_before_ms)
    for end_ms in ends_ms:
        if end_ms is not None:
            yield queue_id <= first_id_at(end_ms + CLOCKS_MS)


def _ids(walk: Walk, selection: Selection, after: str, *, newest_first: bool) -> Select[Any]:
    query = walk.select(walk.queue_id.label("queue_id")).where(*_id_range(selection, walk.queue_id))
    if after:
        query = query.where(walk.queue_id < after if newest_first else walk.queue_id > after)
    return query if walk.source is message else query.distinct()


def matching_ids(
    tx: Transaction, selection: Selection, *, limit: int, after: str, newest_first: bool = False
) -> list[str]:
    """Return the ids of matching messages in the order of acceptance, or the other way round."""
    walks = list(_walks(tx, selection))
    queries = [_ids(walk, selection, after, newest_first=newest_first) for walk in walks]
    query, queue_id = queries[0], walks[0].queue_id
    if selection.is_of_few:
        # a table of its own, so that nobody goes through all mail in the order of its ids
        few = (union(*queries) if queries[1:] else query.offset(0)).subquery()
        query, queue_id = select(few.c.queue_id), few.c.queue_id
    query = query.order_by(queue_id.desc() if newest_first else queue_id).limit(limit)
    if not selection.queue_ids:
        return list(tx.execute(query).scalars())
    ids = sorted(set(selection.queue_ids))
    found = [row[0] for row in rows_in(tx, query, queue_id, ids)]
    return sorted(found, reverse=newest_first)[:limit]


ATTEMPTED_ID = _A.queue_id.concat("")
"""The id itself; with a bare column SQLite reads all attempts in the order of their ids."""
_S = RecipientState
_SERVED = [state.value for state in (_S.DELIVERED, _S.BOUNCED, _S.BLOCKED, _S.CAPTURED)]
IS_TRIED_FOR = (_R.queue_id == _A.queue_id) & or_(
    _R.rcpt_no == _A.rcpt_no,
    _A.rcpt_no.is_(None)
    & (_R.delivery_no == _A.delivery_no)
    & or_(  # who was served before was not tried
        _R.state.not_in(_SERVED),
        _R.changed_at_ms >= _A.since_ms,
    ),
)
_IS_ITS_TRY = (_D.queue_id == _A.queue_id) & (_D.delivery_no == _A.delivery_no)


def count_rare(tx: Transaction, since_ms: int) -> Counter[RecipientState]:
    """Count recipients by rare result: see Queue.count_results."""
    query = (
        select(_R.state, func.count())
        .where(
            HAS_RARE_OUTCOME,
            _R.state.in_(sorted(RARE_RESULTS)),
            _R.changed_at_ms >= tx.to_stored(since_ms),
        )
        .group_by(_R.state)
    )
    return Counter({RecipientState(state): number for state, number in tx.execute(query)})


IS_ITS_RECIPIENT = (_R.queue_id == _D.queue_id) & (_R.delivery_no == _D.delivery_no)
PENDING_RECIPIENTS = (
    select(func.count())
    .where(IS_ITS_RECIPIENT, _R.state == RecipientState.PENDING.value)
    .scalar_subquery()
)
"""How many recipients of a delivery still wait."""
