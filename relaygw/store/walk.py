"""Walks through the rows that lead to messages, in the order of a key; pages begin at places."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import func, select, tuple_, union_all
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import FromClause, Select

from relaygw.mail.result import Asked
from relaygw.mail.state import RARE_RESULTS
from relaygw.store.database import Transaction
from relaygw.store.queue_tables import HAS_RARE_OUTCOME, mail_search, message, recipient
from relaygw.store.terms import ALL_TIMES, IS_LAST_WORD, Condition, Span, of_results, some

_M, _S = message.c, mail_search.c
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
    """Rows in the order of a key, the greatest first; `step` names it in places."""

    source: FromClause
    keys: tuple[ColumnElement[Any], ...]
    queue_id: ColumnElement[str]
    where: Sequence[Condition] = ()
    step: str = ""

    def place(self, key: Key | None) -> str:
        """Return the position at which a page goes on after a key."""
        return ".".join([self.step, *map(str, key or ())])

    def of(self, messages: Sequence[Condition]) -> Walk:
        """Return the rows of those messages alone that fulfil conditions."""
        joined = () if self.source is message else (_M.queue_id == self.queue_id,)
        return replace(self, where=[*self.where, *joined, *messages]) if messages else self

    def select(self, *columns: ColumnElement[Any]) -> Select[Any]:
        """Return a query for columns of the rows, in any order."""
        return select(*columns).select_from(self.source).where(*self.where)

    def rows(self, after: Key | None = None, last: Key | None = None) -> Select[Any]:
        """Return the rows after a key, to the last one: their keys and queue ids."""
        query = self.select(*self.keys, self.queue_id)
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
    """Return the walk through the words of the newest messages."""
    return Walk(mail_search, (_S.search_no,), _S.queue_id, where, step)


def greatest(tx: Transaction) -> int:
    """Return the number of the newest message whose words are written, 0 without any."""
    return tx.execute(select(func.max(_S.search_no))).scalar() or 0


def captured(span: Span = ALL_TIMES) -> Walk:
    """Return the walk through captured mail, in the order of its capture."""
    is_of_time = [_M.captured_at_ms.is_not(None), *span.holds(_M.captured_at_ms)]
    return Walk(message, (_M.captured_at_ms, _M.queue_id), _M.queue_id, is_of_time, "captured")


def ended(asked: Asked, span: Span, people: Sequence[Condition] = ()) -> Iterator[Walk]:
    """Yield the walks through recipients that came to these results in a time, by their indexes.

    `people` are conditions on them.
    """
    is_rare = [HAS_RARE_OUTCOME] if asked.states <= RARE_RESULTS else []
    for table, at_ms, holds in of_results(asked, span):
        more = [*is_rare, *people] if table is recipient else some(IS_LAST_WORD, people)
        yield Walk(table, (at_ms, table.c.queue_id), table.c.queue_id, [*holds, *more])


def ended_by_time(asked: Asked, span: Span) -> Walk:
    """Return one walk through recipients that came to these rare results, the latest first."""
    # one by one, as each index has its own in the order of time
    each = [Asked(states=frozenset({state})) for state in sorted(asked.states)]
    each += [Asked(kinds=frozenset({kind})) for kind in sorted(asked.kinds)]
    walks = [walk for result in each for walk in ended(result, span)]
    if len(walks) == 1:
        return replace(walks[0], step="outcome")
    rows = (
        walk.select(walk.keys[0].label("at_ms"), walk.queue_id.label("queue_id")) for walk in walks
    )
    both = union_all(*rows).subquery("ended")
    return Walk(both, (both.c.at_ms, both.c.queue_id), both.c.queue_id, step="outcome")
