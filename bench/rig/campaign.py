"""What programs of campaigns have in common: how they end, their seed, files and heading."""

from __future__ import annotations

import random
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.rig.machine import describe


def end_with_sigterm() -> None:
    """Let SIGTERM end the program as an exception does, so that everything it started is ended."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def seed_of(asked: int | None) -> int:
    """Return the seed that was asked for, or a new one, and tell it."""
    seed = asked if asked is not None else random.SystemRandom().randrange(10**6)
    sys.stderr.write(f"seed {seed}\n")
    return seed


@contextmanager
def place_of_files(keep: Path | None, history: str, prefix: str) -> Iterator[Path]:
    """Lend the directory to keep, made if need be, or one that is deleted.

    Exits when `history`, a file of an earlier campaign, is in it.
    """
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        if (keep / history).exists():
            sys.exit(f"{keep} holds the files of another run")
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(prefix=prefix, dir="/var/tmp") as name:
        Path(name).chmod(0o755)  # other users work in it
        yield Path(name)


def print_heading(directory: Path) -> None:
    """Print the machine, the time and the command."""
    print(describe(directory))
    print(time.strftime("%Y-%m-%d %H:%M"), shlex.join(sys.argv), end="\n\n")
