"""A table of data as one test, which tells of every row that fails.

    @each_of("text, value", [("1", 1), ("2", 2)])
    def test_parse(text: str, value: int) -> None:
        assert parse(text) == value

It reads as `pytest.mark.parametrize`, and costs one test instead of one for each row. It is for
pure functions: the rows share the fixtures of the test, so none may leave anything behind.
"""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

_FRAMES = 12
_SHOWN = 30


def each_of(
    names: str | Sequence[str],
    rows: Iterable[Any] | Callable[[], Iterable[Any]],
    *,
    ids: Iterable[str] | Callable[[Any], Any] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Call the test for each row; it fails in the end if any did, and shows what each said.

    Rows that take time to make are those of a function, which is called by the test.
    """
    columns = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
    given = list(rows) if isinstance(rows, Iterable) else rows
    told_as = ids if ids is None or callable(ids) else list(ids)

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        def values() -> list[tuple[Any, ...]]:
            return [
                _values(row, len(columns))
                for row in (given if isinstance(given, list) else given())
            ]

        @functools.wraps(test)
        def every_row(*bound: Any, **fixtures: Any) -> None:
            failures, table = [], values()
            for number, row in enumerate(table):
                try:
                    test(*bound, **fixtures, **dict(zip(columns, row, strict=True)))
                except (Exception, pytest.fail.Exception) as error:
                    failures.append(_told(_label(number, row, told_as), error))
            _fail(failures, len(table))

        @functools.wraps(test)
        async def every_row_in_a_loop(*bound: Any, **fixtures: Any) -> None:
            failures, table = [], values()
            for number, row in enumerate(table):
                try:
                    await test(*bound, **fixtures, **dict(zip(columns, row, strict=True)))
                except (Exception, pytest.fail.Exception) as error:
                    failures.append(_told(_label(number, row, told_as), error))
            _fail(failures, len(table))

        whole: Any = every_row_in_a_loop if inspect.iscoroutinefunction(test) else every_row
        signature = inspect.signature(test)
        left = [value for name, value in signature.parameters.items() if name not in columns]
        whole.__signature__ = signature.replace(parameters=left)
        return whole  # type: ignore[no-any-return]

    return decorate


def _values(row: Any, count: int) -> tuple[Any, ...]:
    if hasattr(row, "marks"):  # a pytest.param
        assert not row.marks, "a row of a table has no marks"
        return tuple(row.values)
    return (row,) if count == 1 else tuple(row)


def _label(number: int, row: tuple[Any, ...], ids: list[str] | Callable[[Any], Any] | None) -> str:
    if isinstance(ids, list):
        return f"row {number}, {ids[number]}"
    shown = (str(ids(value)) if ids is not None else repr(value) for value in row)
    return f"row {number}: {', '.join(shown)[:300]}"


def _told(label: str, error: BaseException) -> str:
    lines = traceback.format_exception(error, limit=-_FRAMES)
    return f"--- {label}\n{''.join(lines)}"


def _fail(failures: list[str], count: int) -> None:
    if failures:
        shown = "\n".join(failures[:_SHOWN])
        pytest.fail(f"{len(failures)} of {count} rows fail\n{shown}", pytrace=False)
