"""Runs of many seeds by several processes, and bugs that are planted meanwhile."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

Patch = tuple[Any, Any, Any]  # a module, class or dictionary; what of it; what instead

Found = TypeVar("Found")


class Chunk(NamedTuple):
    """Some seeds that one process runs, with a bug or with none."""

    bug: str
    first: int
    seeds: int
    stops: bool  # at the first seed that is broken


def chunks(bug: str, first: int, count: int, *, each: int, stops: bool) -> Iterator[Chunk]:
    """Return `count` seeds from `first` on in chunks of `each`."""
    for start in range(first, first + count, each):
        yield Chunk(bug, start, min(each, first + count - start), stops)


def spread(jobs: int, run: Callable[[Chunk], Found], tasks: Iterable[Chunk]) -> Iterator[Found]:
    """Run chunks by so many processes; yield what each found, in any order."""
    if jobs <= 1:
        yield from map(run, tasks)
        return
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap_unordered(run, tasks)


@contextmanager
def patched(patches: Iterable[Patch]) -> Iterator[None]:
    """Run a block with these in the places of what is there."""
    patches = list(patches)
    before = [(place, what, _get(place, what)) for place, what, _ in patches]
    for patch in patches:
        _put(*patch)
    try:
        yield
    finally:
        for patch in before:
            _put(*patch)


def _get(place: Any, what: Any) -> Any:
    return place[what] if isinstance(place, dict) else vars(place)[what]


def _put(place: Any, what: Any, value: Any) -> None:
    if isinstance(place, dict):
        place[what] = value
    else:
        setattr(place, what, value)
