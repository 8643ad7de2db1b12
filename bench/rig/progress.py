"""Signs of life on standard error while a benchmark runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

from bench.rig.repeated import repeated

_EVERY_S = 10.0


def say(text: str) -> None:
    """Print one line at once."""
    print(f"   {text}", file=sys.stderr, flush=True)


def telling(text: Callable[[], str]) -> AbstractContextManager[None]:
    """Say what `text` returns every ten seconds, until the block ends."""
    return repeated(lambda: say(text()), each_s=_EVERY_S)
