"""Ways through mail, the newest first: rows in the order of a key, and places where pages begin."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, tuple_
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import FromClause, Select

from relaygw.store.database import Transaction
from relaygw.store.find_terms import Condition
from relaygw.store.tables import mail_search

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


# --- walks ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Walk:
    """Rows in the order of a key, the greatest first."""

    step: str
    source: FromClause
    keys: tuple[ColumnElement[Any], ...]
    queue_id: ColumnElement[str]
    where: Sequence[Condition]

    def place(self, key: Key | None) -> str:
        """Return what a page begins with that goes on after a key."""
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
