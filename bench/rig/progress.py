"""Signs of life on standard error while a benchmark runs."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_EVERY_S = 10.0


def say(text: str) -> None:
    """Print one line at once."""
    print(f"   {text}", file=sys.stderr, flush=True)


@contextmanager
def telling(text: Callable[[], str]) -> Iterator[None]:
    """Say what `text` returns every ten seconds, until the block ends."""
    is_over = threading.Event()

    def tell() -> None:
        while not is_over.wait(_EVERY_S):
            say(text())

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        is_over.set()
        teller.join()
