"""Full text on SQLite: FTS5 tables without content, where SQLite has them as the schema is made."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Integer, Table, Text, column, table

from relaygw.store.database import Transaction

_MERGE_PAGES = 64  # a few milliseconds
_CHANGES = "SELECT total_changes()"


class FullText:
    """An FTS5 table `name` whose rowids are the keys of `rows`, and its text is `search_text`."""

    def __init__(self, name: str, rows: Table) -> None:
        self._name = name
        self._rows = rows.name
        self.table = table(name, column("rowid", Integer), column(name, Text))
        self.rowid = self.table.c.rowid
        self.matches = self.table.c[name].op("MATCH")

    def is_there(self, tx: Transaction) -> bool:
        """True on SQLite with FTS5 as the schema was made."""
        if tx.is_postgres:
            return False
        info = tx.connection.info
        if self._name not in info:
            found = tx.connection.exec_driver_sql(
                "SELECT count(*) FROM sqlite_master WHERE name = ?", (self._name,)
            )
            info[self._name] = bool(found.scalar())
        return bool(info[self._name])

    def add(self, tx: Transaction, rows: Sequence[tuple[int, str]]) -> None:
        """Make texts of new rows findable."""
        if rows and self.is_there(tx):
            tx.connection.exec_driver_sql(
                f"INSERT INTO {self._name} (rowid, search_text) VALUES (?, ?)", list(rows)
            )

    def remove(self, tx: Transaction, numbers: Sequence[int]) -> None:
        """Forget rows that are deleted in the same transaction, or were before."""
        if not (numbers and self.is_there(tx)):
            return
        if tx.connection.exec_driver_sql(f"SELECT 1 FROM {self._rows} LIMIT 1").scalar() is None:
            tx.execute(self.table.insert().values({self._name: "delete-all"}))
            return
        tx.connection.exec_driver_sql(
            f"DELETE FROM {self._name} WHERE rowid = ?", [(number,) for number in numbers]
        )

    def merge(self, tx: Transaction) -> bool:
        """Bring a few pages together, so that searches stay quick; False: all is done."""
        before = tx.connection.exec_driver_sql(_CHANGES).scalar_one()
        tx.connection.exec_driver_sql(
            f"INSERT INTO {self._name} ({self._name}, rank) VALUES ('merge', ?)", (_MERGE_PAGES,)
        )
        # the statement itself counts as one
        return bool(tx.connection.exec_driver_sql(_CHANGES).scalar_one() - before > 1)
