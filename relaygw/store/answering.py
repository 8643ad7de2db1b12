"""Connections to PostgreSQL that do not wait for ever for a server that is there and silent.

The system's limits end a connection whose other side is gone; a server that is frozen, sits
behind a pooler that hangs, or waits for its standby keeps the connection alive and says nothing.
Its own `statement_timeout` does not help: one that is frozen keeps no time, and a commit that
waits for a standby would be called done.
"""

from __future__ import annotations

import time
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen

T = TypeVar("T")


class AnsweringConnection(psycopg.Connection[Any]):
    """Closes itself when an answer takes longer than `answer_s`."""

    answer_s: float | None = None  # None: waits as long as it takes
    _is_given_up = False

    def wait(self, gen: PQGen[T], *args: Any, **more: Any) -> T:
        """Wait as psycopg does; raises OperationalError without a SQLSTATE when it is too long.

        What was asked may still happen in the server.
        """
        if self.answer_s is None:
            return super().wait(gen, *args, **more)
        try:
            return super().wait(_within(gen, self.answer_s), *args, **more)
        except _NoAnswer:
            self._is_given_up = True
            self.pgconn.finish()
            raise psycopg.OperationalError(
                f"the server did not answer within {self.answer_s:g} s"
            ) from None

    def rollback(self) -> None:
        """Undo the transaction; of no effect, and no second error, on one that was given up."""
        if not self._is_given_up:
            super().rollback()


class _NoAnswer(Exception):
    pass


def _within(gen: PQGen[T], limit_s: float) -> PQGen[T]:
    """Pass a generator of psycopg on, which is told several times a second that nothing came."""
    until_s = time.monotonic() + limit_s
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > until_s:
                raise _NoAnswer
            wanted = gen.send(ready)
    except StopIteration as end:
        result: T = end.value
        return result
