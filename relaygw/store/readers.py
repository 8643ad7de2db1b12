"""Connections that read a SQLite queue: kept at hand, since a checkout costs more than a look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine

from relaygw.store.database import close_connections

_MOST_KEPT = 5


class Readers:
    """Lends connections of an engine that begins no transactions; for any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # the last used comes first: the others keep no pages and statements of their own
        self._kept: list[Connection] = []
        self._is_closed = False

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Lend one in a read transaction, which begins with the first statement."""
        try:
            connection = self._kept.pop()
        except IndexError:
            connection = self._engine.connect()
        raw: Any = connection.connection.dbapi_connection
        try:
            raw.execute("BEGIN")
            yield connection
            if connection.in_transaction():  # which began with a statement of SQLAlchemy's
                connection.commit()
            else:  # begun and ended by SQLAlchemy it would cost 100 calls more
                raw.commit()
        except BaseException:
            connection.close()  # its pool makes it fit for the next
            raise
        self._kept.append(connection)
        self._let_go()

    def close(self) -> None:
        """Close all connections; one that a thread still has in use, when it is given back."""
        self._is_closed = True
        self._let_go()
        close_connections(self._engine)

    def _let_go(self) -> None:
        while len(self._kept) > (0 if self._is_closed else _MOST_KEPT):
            try:
                oldest = self._kept.pop(0)
            except IndexError:  # another thread came before
                return
            oldest.detach()  # or its pool would keep it
            oldest.close()
