"""What goes on beside a run: something done again and again until a block ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(do: Callable[[], object], *, each_s: float) -> Iterator[None]:
    """Call `do` on a thread every `each_s` seconds; the first call comes after as long."""
    is_over = threading.Event()

    def go_on() -> None:
        while not is_over.wait(each_s):
            do()

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
