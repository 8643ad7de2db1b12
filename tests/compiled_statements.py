"""Statements that SQLAlchemy has compiled serve all engines of a process, not only their own.

Each test has a queue, and so engines of its own, which would compile the same statements again: a
fifth of what a test of the store costs, and a quarter of what a gateway that is forked does.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine.base import Engine
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.util import LRUCache

_MOST = 4000


def share() -> None:
    """Let the engines made from now on share what they compile; once for a process."""
    if "__eq__" in vars(DefaultDialect):
        return
    compiled: LRUCache[Any, Any] = LRUCache(_MOST)
    init = Engine.__init__

    def init_sharing(engine: Engine, *given: Any, **named: Any) -> None:
        init(engine, *given, **named)
        if engine._compiled_cache is not None:
            engine._compiled_cache = compiled

    def kind(dialect: DefaultDialect) -> tuple[object, ...]:
        return type(dialect), dialect.dbapi, dialect.paramstyle

    # the dialect is a part of the key that a compiled statement has
    DefaultDialect.__eq__ = lambda one, other: (  # type: ignore[assignment, method-assign]
        isinstance(other, DefaultDialect) and kind(one) == kind(other)
    )
    DefaultDialect.__hash__ = lambda one: hash(kind(one))  # type: ignore[assignment, method-assign]
    Engine.__init__ = init_sharing  # type: ignore[method-assign]
