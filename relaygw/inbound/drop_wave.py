"""A wave: files of the maildrop that are read together, within bounds of number and memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path

from relaygw.inbound.drop_file import Drop, NotYet, Unfit, open_drop

MAX_DROPS = 100
MAX_BYTES = 16 * 2**20
"""Content of a wave; a quarter of what may wait to be written, the rest is for SMTP."""


@dataclass(slots=True)
class Wave:
    """What a look at some files found."""

    drops: list[Drop] = field(default_factory=list)
    large: list[str] = field(default_factory=list)  # to be read where nobody waits for it
    stored: list[str] = field(default_factory=list)  # their mail is in the queue already
    unfit: list[tuple[str, str]] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    broken: list[tuple[str, Exception]] = field(default_factory=list)  # each alone: count it
    trouble: Exception | None = None  # of the machine, which every other file would meet


def read_wave(
    directory: int,
    names: deque[str],
    *,
    limit_bytes: int,
    spool_directory: Path,
    stored: Container[str] = (),
) -> Wave:
    """Take names from the left of `names` and read their files, until the wave is full."""
    wave = Wave()
    size_bytes = 0
    while names and len(wave.drops) < MAX_DROPS and size_bytes < MAX_BYTES and not wave.trouble:
        name = names.popleft()
        if name in stored:
            wave.stored.append(name)
            continue
        before = len(wave.drops)
        _read(wave, directory, name, limit_bytes, spool_directory, is_large_wanted=False)
        size_bytes += sum(drop.content.size_bytes for drop in wave.drops[before:])
    return wave


def read_one(directory: int, name: str, *, limit_bytes: int, spool_directory: Path) -> Wave:
    """Read one file of any size, up to its first chunk in memory."""
    wave = Wave()
    _read(wave, directory, name, limit_bytes, spool_directory, is_large_wanted=True)
    return wave


def _read(
    wave: Wave,
    directory: int,
    name: str,
    limit_bytes: int,
    spool_directory: Path,
    *,
    is_large_wanted: bool,
) -> None:
    try:
        opened = open_drop(directory, name, limit_bytes=limit_bytes)
        if opened is None:
            return
        with opened:
            if opened.is_large and not is_large_wanted:
                wave.large.append(name)
                return
            drop = opened.read(spool_directory)
        drop.content.read_head()
        wave.drops.append(drop)
    except NotYet:
        wave.unfinished.append(name)  # looked at again in a second
    except Unfit as error:
        wave.unfit.append((name, str(error)))
    except (OSError, MemoryError) as error:
        wave.trouble = error
    except Exception as error:
        wave.broken.append((name, error))
