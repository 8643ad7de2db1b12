"""A store whose database runs on another machine, whose clock is the one that counts.

Callers go by their own clock, and those of a fleet may differ by minutes. Every time is therefore
moved by the difference: on the way in what a verb is given, on the way out what it returns. Times
are known by their names (`_is_time`), in whatever they stand, so that no verb and no result is
forgotten. Less than a second is no difference: it comes from measuring.
"""

# ruff: noqa: D102 (store.protocol documents every method)

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from functools import cache, wraps
from typing import Any

from relaygw.errors import StoreUnavailable
from relaygw.mail.search import Field, Term
from relaygw.store.protocol import Store
from relaygw.store.sql import SqlStore

_SAME_MS = 1000
_SHARP_MS = 500  # an answer that took longer says too little
_TIMES = ("_at_ms", "_since_ms", "_before_ms", "_now_ms", "_cutoffs")
_SEARCHED_TIMES = (Field.AFTER, Field.BEFORE)


class DatabaseClockStore(SqlStore):
    """`SqlStore` with all times by the database's clock; it is looked at with each heartbeat."""

    def __init__(self, *, keep_content: bool) -> None:
        super().__init__(keep_content=keep_content)
        # how far the database was ahead, and this machine's clock beyond its time awake, then
        self._measured: tuple[int, int] | None = None

    def _here_ms(self) -> int:
        """Return this machine's time."""
        return time.time_ns() // 1_000_000

    @property
    def _ahead_ms(self) -> int:
        """How far the database's clock is ahead of this machine's."""
        if self._measured is None:
            self._measure()
        return self._known_ahead_ms()

    def _known_ahead_ms(self) -> int:
        """Return the difference as it was measured; a clock that was set here since is allowed for.

        Kept as it is if it can be: what is written again, because an answer was lost, is the same.
        """
        if self._measured is None:
            return 0
        ahead_ms, beyond_ms = self._measured
        set_by_ms = self._here_ms() - _awake_ms() - beyond_ms
        return ahead_ms - set_by_ms if abs(set_by_ms) > _SAME_MS else ahead_ms

    def _measure(self) -> None:
        with self._read() as connection:
            asked_ms = self._here_ms()
            there_ms = self._now_us(connection) // 1000
            answered_ms = self._here_ms()
        before_ms = self._known_ahead_ms()
        ahead_ms = there_ms - (asked_ms + answered_ms) // 2
        is_new = abs(ahead_ms - before_ms) > _SAME_MS
        is_sharp = answered_ms - asked_ms <= _SHARP_MS or self._measured is None
        self._measured = (
            ahead_ms if is_new and is_sharp else before_ms,
            answered_ms - _awake_ms(),
        )

    def clock_ms(self) -> int:
        return self._here_ms() + self._ahead_ms

    def heartbeat(self, incarnation: str, *, state: str = "running") -> bool:
        is_known = super().heartbeat(incarnation, state=state)
        with suppress(StoreUnavailable):
            self._measure()
        return is_known


def _awake_ms() -> int:
    """Return a clock that nobody sets, and that goes on while the machine is suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def _by_the_database(name: str) -> Callable[..., Any]:
    """Return a verb of `SqlStore` whose callers go by this machine's clock."""
    original = getattr(SqlStore, name)
    _, *parameters = inspect.signature(original).parameters

    @wraps(original)
    def verb(self: DatabaseClockStore, *given: Any, **named: Any) -> Any:
        inner = getattr(super(DatabaseClockStore, self), name)
        ahead_ms = self._ahead_ms
        if not ahead_ms:
            return inner(*given, **named)
        arguments = dict(zip(parameters, given, strict=False)) | named
        there = {key: _moved(key, value, ahead_ms) for key, value in arguments.items()}
        return _moved(name, inner(**there), -ahead_ms)

    return verb


def _verbs() -> set[str]:
    """Return the methods of `Store`, whatever part of it they belong to."""
    return {
        name
        for base in Store.__mro__
        for name, member in vars(base).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }


for _name in _verbs() - {"close", *vars(DatabaseClockStore)}:
    setattr(DatabaseClockStore, _name, _by_the_database(_name))


def _is_time(name: str) -> bool:
    return f"_{name}".endswith(_TIMES)


def _moved(name: str, value: Any, by_ms: int) -> Any:
    """Return a value of this name with all its times moved; those that are not set stay so."""
    match value:
        case None | bool() | str() | bytes() | float():
            return value
        case int():
            return value + by_ms if value and _is_time(name) else value
        case Term():
            is_time = value.field in _SEARCHED_TIMES
            return replace(value, number=value.number + by_ms) if is_time else value
        case Mapping():
            return {key: _moved(name, one, by_ms) for key, one in value.items()}
        case tuple() if hasattr(value, "_fields"):
            named = zip(value._fields, value, strict=True)
            return type(value)(*(_moved(one, part, by_ms) for one, part in named))
        case list() | tuple() | set() | frozenset():
            return type(value)(_moved(name, one, by_ms) for one in value)
    if is_dataclass(value) and not isinstance(value, type):
        changes = {one: _moved(one, getattr(value, one), by_ms) for one in _names(type(value))}
        return replace(value, **changes)
    return value


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))
