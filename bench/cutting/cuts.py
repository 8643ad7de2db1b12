"""The disk as a power cut leaves it: what was flushed, and of the rest what chance keeps."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from bench.cutting.disk import Event, read_events

_SHARES = (0.1, 0.5, 0.9)
_BLOCK_BYTES = 1 << 20
_NOTHING = bytes(_BLOCK_BYTES)


class Kept(Enum):
    """What stays of writes that were not flushed; the value is the size of the pieces."""

    NOTHING = 0
    WRITES = 1 << 62  # each as a whole, or not at all
    PAGES = 4096
    SECTORS = 512


@dataclass(frozen=True, slots=True)
class Cut:
    """The first event that did not happen, and what becomes of those not flushed before it."""

    number: int
    at_ns: int  # all that was noted before this moment depends on earlier events only
    kept: Kept
    share: float


def plan(
    log: Path, count: int, chance: random.Random, *, since_ns: int, until_ns: int
) -> list[Cut]:
    """Return cuts at events by chance, half of them at a flush: most is at stake then.

    Half of those are the flushes that came longest after the one before.
    """
    flushes: list[tuple[int, int, int]] = []  # with the time since the one before
    others: list[tuple[int, int]] = []
    before_ns = since_ns
    for number, event in enumerate(read_events(log)):
        if event.content is None and since_ns <= event.at_ns <= until_ns:
            flushes.append((event.at_ns - before_ns, number, event.at_ns))
            before_ns = event.at_ns
        elif since_ns <= event.at_ns <= until_ns:
            others.append((number, event.at_ns))
    flushes.sort(reverse=True)
    longest, rest = flushes[: -(-count // 4)], flushes[-(-count // 4) :]
    at_flushes = longest + chance.sample(rest, max(0, min(count // 2 - len(longest), len(rest))))
    chosen = [one[1:] for one in at_flushes]
    chosen += chance.sample(others, min(count - len(chosen), len(others)))
    manners = list(Kept)
    return [
        Cut(number, at_ns, manners[place % len(manners)], chance.choice(_SHARES))
        for place, (number, at_ns) in enumerate(sorted(chosen))
    ]


def images(
    log: Path, empty: Path, image: Path, cuts: Sequence[Cut], chance: random.Random
) -> Iterator[Cut]:
    """For each cut, in order of time, make `image` the disk after it; `empty` is that before all.

    An image may be changed; what is done to it is gone with the next one.
    """
    durable = bytearray(empty.read_bytes())
    loose: list[Event] = []
    waiting = iter(cuts)
    cut = next(waiting, None)
    for number, event in enumerate(read_events(log)):
        while cut is not None and cut.number == number:
            _write_image(image, durable, loose, cut, chance)
            yield cut
            cut = next(waiting, None)
        if cut is None:
            return
        if event.content is not None:
            loose.append(event)
            continue
        for one in loose:
            assert one.content is not None
            durable[one.offset : one.offset + len(one.content)] = one.content
        loose.clear()


def _write_image(
    image: Path, durable: bytearray, loose: Sequence[Event], cut: Cut, chance: random.Random
) -> None:
    image.unlink(missing_ok=True)  # a device may still be busy with the one before
    with image.open("wb", buffering=0) as file:
        file.truncate(len(durable))
        for start in range(0, len(durable), _BLOCK_BYTES):
            block = durable[start : start + _BLOCK_BYTES]
            if block != _NOTHING:
                file.seek(start)
                file.write(block)
        for offset, piece in _pieces(loose, cut):
            if chance.random() < cut.share:
                file.seek(offset)
                file.write(piece)


def _pieces(loose: Sequence[Event], cut: Cut) -> Iterator[tuple[int, bytes]]:
    if cut.kept is Kept.NOTHING:
        return
    for event in loose:
        content = event.content or b""
        for start in range(0, len(content), cut.kept.value):
            yield event.offset + start, content[start : start + cut.kept.value]
