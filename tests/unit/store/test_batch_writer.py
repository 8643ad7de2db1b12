"""A batch ends with an error, whatever its write raises; what comes behind it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from relaygw.store.batch_writer import BatchWriter

ENDS = pytest.mark.parametrize(
    "failure", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(), OSError("x")]
)


def writer_of(
    write_all: Callable[[Sequence[str]], Sequence[str]],
    *,
    refused: Callable[[str, Exception], str] = lambda item, error: f"{item}: {error!r}",
    told: list[object],
    is_away: Callable[[Exception], bool] | None = None,
    **more: Any,
) -> BatchWriter[str, str]:
    return BatchWriter[str, str](
        "write",
        size=len,
        write_all=write_all,
        refused=refused,
        told=lambda items, _: told.append(list(items)),
        is_away=is_away,
        away=lambda error, waiting: told.append((str(error), waiting)),
        **more,
    )


async def test_what_follows_soon_waits_for_all_that_is_expected() -> None:
    told: list[object] = []
    writer = writer_of(lambda items: items, told=told, pace_s=3600, expected=lambda: 2)
    async with asyncio.timeout(10):
        await writer.add("alone")
        first = writer.add("first")
        await asyncio.sleep(0)  # the writer begins, and waits, though the thread is free
        await writer.add("second")
        await first
    assert told == [["alone"], ["first", "second"]]
    assert await writer.drain() == []


async def test_what_follows_soon_waits_no_longer_than_the_pace() -> None:
    told: list[object] = []
    writer = writer_of(lambda items: items, told=told, pace_s=0.01, expected=lambda: 99)
    async with asyncio.timeout(10):
        await writer.add("alone")
        await writer.add("next")
    assert told == [["alone"], ["next"]]
    assert await writer.drain() == []


@ENDS
async def test_what_ends_a_thread_ends_its_item_only(failure: BaseException) -> None:
    def write_all(items: Sequence[str]) -> Sequence[str]:
        if "bad" in items:
            raise failure
        return items

    told: list[object] = []
    writer = writer_of(write_all, told=told)
    async with asyncio.timeout(10):
        good, bad, other = await asyncio.gather(*map(writer.add, ("good", "bad", "other")))
        assert (good, other) == ("good", "other")
        assert repr(failure).strip("()") in bad
        assert await writer.add("next") == "next"
    assert told == [["good", "bad", "other"], ["next"]]
    assert await writer.drain() == []


@ENDS
async def test_where_refusing_fails_too_the_batch_is_refused(failure: BaseException) -> None:
    refusals = 0

    def write_all(items: Sequence[str]) -> Sequence[str]:
        if items == ["bad"]:
            raise failure
        return items

    def refused(item: str, error: Exception) -> str:
        nonlocal refusals
        refusals += 1
        if refusals == 1:
            raise failure
        return f"{item}: {error}"

    writer = writer_of(write_all, refused=refused, told=[])
    async with asyncio.timeout(10):
        assert (await writer.add("bad")).startswith("bad: it was not written: ")
        assert await writer.add("next") == "next"
    assert await writer.drain() == []


@ENDS
async def test_where_nothing_is_dropped_the_batch_is_told_and_tried_again(
    failure: BaseException,
) -> None:
    failures = [failure, failure]

    def write_all(items: Sequence[str]) -> Sequence[str]:
        if failures:
            raise failures.pop()
        return items

    def refused(_item: str, _error: Exception) -> str:
        raise failures.pop()

    told: list[object] = []
    writer = writer_of(
        write_all, refused=refused, told=told, is_away=lambda _: False, retry_ladder_s=(0.001,)
    )
    async with asyncio.timeout(10):
        assert await writer.add("kept") == "kept"
    (_, waiting), items = told
    assert (waiting, items) == (1, ["kept"])
    assert await writer.drain() == []


async def test_waits_begin_anew_once_something_was_written() -> None:
    goes_well = iter([False, True, False, True])

    def write_all(items: Sequence[str]) -> Sequence[str]:
        if not next(goes_well):
            raise OSError
        return items

    ladder_s = (0.001, 3600.0)
    writer = writer_of(write_all, told=[], is_away=lambda _: True, retry_ladder_s=ladder_s)
    async with asyncio.timeout(10):
        assert [await writer.add(one) for one in ("one", "two")] == ["one", "two"]
    assert await writer.drain() == []
