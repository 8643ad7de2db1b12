"""Volumes of their own, in memory, that can be full: what uses them needs the right "mounts"."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def small_volume(place: Path, options: str, *, owner: str | None = None) -> Iterator[Path]:
    """Mount a volume for the length of a with block."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
    try:
        if owner is not None:
            shutil.chown(place, owner)
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@contextmanager
def filled(volume: Path) -> Iterator[None]:
    """Leave no byte free on a volume for the length of a with block."""
    ballast = volume / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def without_inodes(volume: Path) -> Iterator[None]:
    """Let no file be made on a volume for the length of a with block."""
    ballast = volume / "many"
    ballast.mkdir()
    with suppress(OSError):
        for number in itertools.count():
            (ballast / str(number)).touch()
    try:
        yield
    finally:
        shutil.rmtree(ballast)
