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
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest

_FRAMES = 12
_SHOWN = 30


def each_of(
    names: str | Sequence[str],
    rows: Iterable[Any],
    *,
    ids: Iterable[str] | Callable[[Any], Any] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Call the test for each row; it fails in the end if any did, and shows what each said."""
    columns = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
    table = [_values(row, len(columns)) for row in rows]
    labels = list(_labels(table, ids))

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        def calls() -> Iterator[tuple[str, dict[str, Any]]]:
            for label, row in zip(labels, table, strict=True):
                yield label, dict(zip(columns, row, strict=True))

        @functools.wraps(test)
        def every_row(*bound: Any, **fixtures: Any) -> None:
            failures = []
            for label, row in calls():
                try:
                    test(*bound, **fixtures, **row)
                except (Exception, pytest.fail.Exception) as error:
                    failures.append(_told(label, error))
            _fail(failures, len(table))

        @functools.wraps(test)
        async def every_row_in_a_loop(*bound: Any, **fixtures: Any) -> None:
            failures = []
            for label, row in calls():
                try:
                    await test(*bound, **fixtures, **row)
                except (Exception, pytest.fail.Exception) as error:
                    failures.append(_told(label, error))
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


def _labels(
    table: list[tuple[Any, ...]], ids: Iterable[str] | Callable[[Any], Any] | None
) -> Iterator[str]:
    named = None if ids is None or callable(ids) else list(ids)
    for number, row in enumerate(table):
        if named is not None:
            yield f"row {number}, {named[number]}"
        else:
            shown = (str(ids(value)) if callable(ids) else repr(value) for value in row)
            yield f"row {number}: {', '.join(shown)[:300]}"


def _told(label: str, error: BaseException) -> str:
    lines = traceback.format_exception(error, limit=-_FRAMES)
    return f"--- {label}\n{''.join(lines)}"


def _fail(failures: list[str], count: int) -> None:
    if failures:
        shown = "\n".join(failures[:_SHOWN])
        pytest.fail(f"{len(failures)} of {count} rows fail\n{shown}", pytrace=False)
