"""What a plain message costs is counted, against bounds that only a reason raises.

The counts are those of `bench/counts`, the same on a busy machine as on a quiet one. Who adds to
them raises the bound in the same change and says why; who takes away lowers it.
"""

from __future__ import annotations

import pytest

from bench.message_counts import of_one_message

BOUNDS = {
    "front: calls of relaygw": (307, 307),
    "front: calls of all": (762, 810),
    "front: statements": (7, 7),
    "front: write transactions": (1, 1),
    "front: written bytes": (52_000, 98_000),
    "delivery: calls of relaygw": (495, 495),
    "delivery: calls of all": (1090, 1090),
    "delivery: statements": (18, 18),
    "delivery: write transactions": (2, 2),
    "delivery: written bytes": (64_000, 112_000),
}
"""By figure: at most so many for a message of 4 KiB, and of 50 KiB.

Calls have a fiftieth more than they are: on a busy machine a timer falls into every message.
"""
TRIES = 3
"""A machine may be so busy that several timers do; what a message costs is the least."""


@pytest.mark.parametrize(("size_bytes", "column"), [(4096, 0), (51200, 1)])
def test_a_message_costs_no_more_than_it_did(size_bytes: int, column: int) -> None:
    for _ in range(TRIES):
        figures = of_one_message(size_bytes).figures()
        assert figures.keys() == BOUNDS.keys()
        over = {
            name: f"{figure}, at most {BOUNDS[name][column]}"
            for name, figure in figures.items()
            if figure > BOUNDS[name][column]
        }
        if not over:
            break
    assert not over, "bench/counts --top 60 names what is called"
