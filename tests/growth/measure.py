"""How the processor time of a call grows with the size of its input.

Processor time of this thread, the best of several: another load of the machine costs no processor
time here, and what disturbs a call makes it slower, never quicker.
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

SIZES = (2_000, 8_000, 32_000, 64_000)
MARGIN = 2.2  # above size * log(size); four times the size takes 16 times as long if quadratic
NOTHING_S = 0.002  # less than this, at any size, is no growth to speak of
TOO_LONG_S = 0.6  # no call takes so long at any of these sizes: growing on would take minutes
_TRIES = 4
_LOOKS, _APART_S = 20, 0.002
_FIRST, _SECOND = 1_000, 4_000  # bytes of a first look
_FEW_BYTES = (18, 24)
_OTHER = 40  # bytes that make a text another one
_AGAIN = 5  # looks at the first size: a busy host disturbs some
_QUICK_S = 0.0002  # a square of 1,000 steps takes longer
_SWITCH_S = 0.0005  # as of the roles


@dataclass(frozen=True, slots=True)
class Growth:
    """Two sizes between which the time grew faster than size * log(size)."""

    small: int
    small_s: float
    large: int
    large_s: float

    def __str__(self) -> str:
        return (
            f"{self.small} bytes {self.small_s * 1000:.1f} ms, "
            f"{self.large} bytes {self.large_s * 1000:.1f} ms"
        )


def once(call: Callable[[Any], object], given: Any) -> float:
    """Return the processor time of one call in s; what it raises is an answer like any other."""
    began = time.thread_time()
    with contextlib.suppress(Exception):  # an error in little time is an answer as good as any
        call(given)
    return time.thread_time() - began


def suspect(call: Callable[[Any], object], make: Callable[[int], Any]) -> bool:
    """Return whether a first look, at little size, calls for `growth`; it costs next to nothing."""
    first_s = once(call, make(_FIRST))
    if first_s < _QUICK_S:
        return False
    # a square takes 16 times as long: less than half of that is none, whatever disturbed the first
    again = (once(call, make(_FIRST + number * _OTHER)) for number in range(1, _AGAIN))
    first_s = min(first_s, *again)
    return once(call, make(_SECOND)) > 7 * max(first_s, _QUICK_S)


def is_endless(call: Callable[[Any], object], make: Callable[[int], Any]) -> bool:
    """Return whether the time doubles with each few bytes, so that larger texts never end."""
    return any(all(_slow_looks(call, make(size))) for size in _FEW_BYTES)


def _slow_looks(call: Callable[[Any], object], given: Any) -> Iterator[bool]:
    """Yield whether a call takes long, at times apart: a busy host takes some for itself."""
    for _ in range(_LOOKS):
        yield once(call, given) > _QUICK_S
        time.sleep(_APART_S)


def growth(
    call: Callable[[Any], object], make: Callable[[int], Any], sizes: tuple[int, ...] = SIZES
) -> Growth | None:
    """Return where the time of `call(make(size))` grows too fast; None where it does not."""
    small = sizes[0]
    small_s = _best(call, make, small)
    for large in sizes[1:]:
        ratio = large * math.log(large) / (small * math.log(small))
        for _ in range(2):  # a small time may have been the luck of a moment: both once more
            allowed_s = max(MARGIN * small_s * ratio, NOTHING_S)
            large_s = _best(call, make, large, enough_s=min(allowed_s, TOO_LONG_S))
            if large_s <= min(allowed_s, TOO_LONG_S):
                break
            small_s = max(small_s, _best(call, make, small))
        else:
            return Growth(small, small_s, large, large_s)
    return None


def _best(
    call: Callable[[Any], object], make: Callable[[int], Any], size: int, *, enough_s: float = 0.0
) -> float:
    """Return the least time of several calls; no more calls when one was quick enough.

    Each has a text of its own: what was seen before may be remembered.
    """
    best = math.inf
    for number in range(_TRIES):
        best = min(best, once(call, make(size + number * _OTHER)))
        if best <= enough_s or best > TOO_LONG_S:
            break
    return best


@contextlib.contextmanager
def turns() -> Iterator[list[float]]:
    """Lend a list that notes the processor time of this thread at each turn of another one."""
    clock, is_over = time.pthread_getcpuclockid(threading.get_ident()), threading.Event()
    noted: list[float] = []

    def note() -> None:
        while not is_over.wait(_SWITCH_S):
            noted.append(time.clock_gettime(clock))

    before_s, other = sys.getswitchinterval(), threading.Thread(target=note)
    sys.setswitchinterval(_SWITCH_S)
    other.start()
    try:
        yield noted
    finally:
        is_over.set()
        other.join()
        sys.setswitchinterval(before_s)


def longest_hold(call: Callable[[Any], object], given: Any, *, enough_s: float) -> float:
    """Return for how long a call lets no other thread of the process have a turn, in s.

    In processor time, and the best of several calls: another load has the turns come late.
    """
    best = math.inf
    for _ in range(_TRIES):
        with turns() as noted:
            began = time.thread_time()
            with contextlib.suppress(Exception):
                call(given)
            at = [began, *noted, time.thread_time()]
        best = min(best, max(after - before for before, after in pairwise(at)))
        if best <= enough_s:
            break
    return best
