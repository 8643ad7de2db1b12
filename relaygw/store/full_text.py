"""Where a text stands in what is searched, in the middle of a word too.

SQLite: `captured_fts`, an FTS5 table of trigrams that answers from its positions, without
looking at a text. It exists where SQLite is 3.43 or newer when the schema is made. PostgreSQL: an
index of trigrams under LIKE, where the extension pg_trgm may be created. Without either, and for
texts of less than three characters, all texts are read.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Integer, Text, column, func, insert, select, table
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import Select

from relaygw.mail.search import Term
from relaygw.store.database import Transaction
from relaygw.store.tables import captured_text

MIN_CHARACTERS = 3
_MERGE_PAGES = 64  # a few milliseconds
_IS_THERE = "captured_fts"  # key in a connection's `info`

fts = table("captured_fts", column("rowid", Integer), column("captured_fts", Text))
"""rowid is captured_index.index_no."""


def has_table(tx: Transaction) -> bool:
    """True on SQLite with FTS5 as the schema was made."""
    if tx.is_postgres:
        return False
    if _IS_THERE not in tx.connection.info:
        found = tx.connection.exec_driver_sql(
            "SELECT count(*) FROM sqlite_master WHERE name = 'captured_fts'"
        )
        tx.connection.info[_IS_THERE] = bool(found.scalar())
    return bool(tx.connection.info[_IS_THERE])


def add(tx: Transaction, rows: Sequence[tuple[int, str]]) -> None:
    """Make texts of new rows findable."""
    if rows and has_table(tx):
        tx.connection.exec_driver_sql(
            "INSERT INTO captured_fts (rowid, search_text) VALUES (?, ?)", list(rows)
        )


def remove(tx: Transaction, index_nos: Sequence[int]) -> None:
    """Forget rows that are deleted from captured_index in the same transaction, or before."""
    if not (index_nos and has_table(tx)):
        return
    if tx.connection.exec_driver_sql("SELECT 1 FROM captured_index LIMIT 1").scalar() is None:
        tx.execute(insert(fts).values(captured_fts="delete-all"))
        return
    tx.connection.exec_driver_sql(
        "DELETE FROM captured_fts WHERE rowid = ?", [(number,) for number in index_nos]
    )


def merge(tx: Transaction) -> bool:
    """Bring a few pages of the index together, so that searches stay quick; False: all is done."""
    changes = "SELECT total_changes()"
    before = tx.connection.exec_driver_sql(changes).scalar_one()
    tx.connection.exec_driver_sql(
        "INSERT INTO captured_fts (captured_fts, rank) VALUES ('merge', ?)", (_MERGE_PAGES,)
    )
    # the statement itself counts as one
    return bool(tx.connection.exec_driver_sql(changes).scalar_one() - before > 1)


def matches(wanted: Sequence[str], unwanted: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition on `fts` that all of the first, and none of the second, stand there."""
    phrases = " AND ".join(f'"{text}"' for text in wanted)
    return _match(phrases + "".join(f' NOT "{text}"' for text in unwanted))


def having_any(texts: Sequence[str]) -> Select[tuple[int]]:
    """Return the rows of `fts` in which any of the texts stands."""
    return select(fts.c.rowid).where(_match(" OR ".join(f'"{text}"' for text in texts)))


def _match(query: str) -> ColumnElement[bool]:
    condition: ColumnElement[bool] = fts.c.captured_fts.op("MATCH")(query)
    return condition


def stands_in_text(tx: Transaction, term: Term) -> ColumnElement[bool]:
    """Return the condition on captured_text that a term holds."""
    found: ColumnElement[bool]
    if not tx.is_postgres:
        found = contains(tx, captured_text.c.search_text, term.text)
    else:  # only LIKE can use the index
        literal = term.text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
        found = captured_text.c.search_text.like(f"%{literal}%")
    return ~found if term.is_negated else found


def contains(tx: Transaction, text: ColumnElement[str], part: str) -> ColumnElement[bool]:
    """Return the condition that `part` stands in `text`, letter by letter."""
    find = func.instr if not tx.is_postgres else func.strpos
    return find(text, part) > 0
