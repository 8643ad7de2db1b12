"""A table of data is one test: it goes through all rows and tells of each that fails."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from tests.tables import each_of


def test_every_row_is_tried_and_each_failure_told() -> None:
    tried = []

    @each_of("text, value", [("1", 1), ("x", 2), ("3", 4)], ids=["good", "no number", "wrong"])
    def check(text: str, value: int) -> None:
        tried.append(text)
        assert int(text) == value

    with pytest.raises(pytest.fail.Exception) as caught:
        check()
    assert tried == ["1", "x", "3"]
    told = str(caught.value)
    assert told.startswith("2 of 3 rows fail\n--- row 1, no number\n")
    assert "ValueError: invalid literal" in told
    assert "--- row 2, wrong\n" in told


def test_tables_multiply_and_the_rest_are_fixtures() -> None:
    seen = []

    @each_of("a", [1, 2])
    @each_of("b", "xy")
    async def check(a: int, b: str, fixture: str) -> None:
        seen.append((a, b, fixture))

    assert list(inspect.signature(check).parameters) == ["fixture"]
    asyncio.run(check(fixture="f"))
    assert seen == [(1, "x", "f"), (1, "y", "f"), (2, "x", "f"), (2, "y", "f")]
