"""Whatever a store on another machine is told or tells is moved between the two clocks.

Verbs, arguments and results are found by their types: a new one is looked at without a word here.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest

from relaygw.mail.search import Field, MailSearch, Term
from relaygw.store import attempts, captured, commands, protocol, watching
from relaygw.store.database_clock import DatabaseClockStore
from relaygw.store.postgres import PostgresStore
from relaygw.store.sql import SqlStore

HOUR_MS = 3_600_000
TIME_MS = 1_795_600_000_000
NUMBER = 7
NOW_AND_THEN = MailSearch(
    terms=(
        Term(field=Field.AFTER, number=TIME_MS),
        Term(field=Field.BEFORE, number=TIME_MS),
        Term(field=Field.LARGER, number=NUMBER),
    )
)
DURATIONS = {"held_ms", "bounds_ms"}
NAMES = {
    name: value
    for room in (attempts, captured, commands, watching, protocol)
    for name, value in vars(room).items()
}
VERBS = {
    name: member
    for base in reversed(protocol.Store.__mro__)
    for name, member in vars(base).items()
    if inspect.isfunction(member) and not name.startswith("_")
}


def is_time(name: str) -> bool:
    """True for the name of a time; every other name that ends in _ms must be a duration."""
    if not name.endswith("_ms"):
        return name == "cutoffs"
    if name in DURATIONS:
        return False
    kinds = ("_at_ms", "_since_ms", "_before_ms", "_now_ms")
    assert f"_{name}".endswith(kinds), f"what is {name}?"
    return True


def sample(kind: Any, name: str) -> Any:
    """Return a value of a type with all its times at TIME_MS."""
    if kind is MailSearch:
        return NOW_AND_THEN
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return sample(parts[0], name)
    if origin is tuple and parts[-1] is not Ellipsis:
        return tuple(sample(part, name) for part in parts)
    if origin in (tuple, list, set, frozenset, Sequence, Collection):
        container = list if origin in (Sequence, Collection) else origin
        return container([sample(parts[0], name)])
    if origin in (dict, Mapping):
        return {sample(parts[0], ""): sample(parts[1], name)}
    if is_dataclass(kind) or hasattr(kind, "_fields"):
        hints = get_type_hints(kind, localns=NAMES)
        return kind(**{one: sample(hint, one) for one, hint in hints.items()})
    if issubclass(kind, Enum):
        return next(iter(kind))
    plain = {bool: False, float: 1.5, str: "x", bytes: b"x", types.NoneType: None}
    return plain[kind] if kind in plain else TIME_MS if is_time(name) else NUMBER


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, int]]:
    """Yield every number in a value, wherever it stands."""
    if isinstance(value, int) and not isinstance(value, bool):
        yield path, value
    elif is_dataclass(value):
        for field in fields(value):
            yield from numbers(getattr(value, field.name), f"{path}.{field.name}")
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from numbers(one, f"{path}[{key}]")
    elif isinstance(value, (list, tuple, set, frozenset)):
        for one in value:
            yield from numbers(one, f"{path}[]")


class OnAnotherMachine(PostgresStore):
    """A store whose database is an hour ahead, or behind, and out of reach."""

    ahead_ms = 0

    @property
    def _ahead_ms(self) -> int:
        return self.ahead_ms


@pytest.fixture
def store() -> Iterator[OnAnotherMachine]:
    store = OnAnotherMachine("postgresql://nobody@127.0.0.1:1/none", keep_content=False)
    yield store
    store.close()


@pytest.mark.parametrize("ahead_ms", [HOUR_MS, -HOUR_MS], ids=["ahead", "behind"])
@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"close", "clock_ms"}))
def test_every_time_that_passes_is_moved(
    store: OnAnotherMachine, verb: str, ahead_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.ahead_ms = ahead_ms
    hints = get_type_hints(VERBS[verb], localns=NAMES)
    told = sample(hints.pop("return"), verb)
    got: dict[str, Any] = {}
    names = tuple(hints)

    def inner(_self: SqlStore, *given: Any, **named: Any) -> Any:
        got.update(zip(names, given, strict=False))
        got.update(named)
        return told

    monkeypatch.setattr(SqlStore, verb, inner)
    arguments = {name: sample(hint, name) for name, hint in hints.items()}
    result = call(getattr(store, verb), VERBS[verb], arguments)
    for kind, before, after, by_ms in (
        ("argument", arguments, got, ahead_ms),
        ("result", told, result, -ahead_ms),
    ):
        expected = [
            (path, number + by_ms if number == TIME_MS else number)
            for path, number in numbers(before)
        ]
        assert list(numbers(after)) == expected, f"{verb}: {kind}"


def call(verb: Callable[..., Any], function: Any, arguments: dict[str, Any]) -> Any:
    """Call a verb as callers do: by place where that is allowed."""
    kinds = inspect.signature(function).parameters
    by_place = [
        arguments[name]
        for name, parameter in kinds.items()
        if name in arguments and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    by_name = {
        name: value
        for name, value in arguments.items()
        if kinds[name].kind is inspect.Parameter.KEYWORD_ONLY
    }
    return verb(*by_place, **by_name)


def test_what_is_not_set_stays_so(store: OnAnotherMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    store.ahead_ms = HOUR_MS
    never = protocol.SenderNote(provider="p", sender="s", accepted_at_ms=None, refused_at_ms=0)
    monkeypatch.setattr(SqlStore, "senders", lambda _self: [never])
    assert store.senders() == [never]


def test_a_clock_that_is_set_between_two_heartbeats_moves_nothing(
    store: OnAnotherMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The own clock is set; the database's time is what it was."""
    clock = types.SimpleNamespace(here_ms=TIME_MS, awake_ms=5_000)
    monkeypatch.setattr(PostgresStore, "_here_ms", lambda _self: clock.here_ms)
    monkeypatch.setattr("relaygw.store.database_clock._awake_ms", lambda: clock.awake_ms)
    store._measured = (60_000, TIME_MS - 5_000)
    ahead_ms = DatabaseClockStore._ahead_ms.fget
    assert ahead_ms is not None
    assert ahead_ms(store) == 60_000
    clock.here_ms += 3_000
    clock.awake_ms += 3_000
    assert ahead_ms(store) == 60_000
    clock.here_ms += HOUR_MS
    assert ahead_ms(store) == 60_000 - HOUR_MS
    clock.here_ms -= 2 * HOUR_MS
    assert ahead_ms(store) == 60_000 + HOUR_MS
