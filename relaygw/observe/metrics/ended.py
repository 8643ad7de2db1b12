"""What processes counted that have ended, kept in one file of each kind.

A gateway that is reloaded each hour for a year leaves ten thousand of them.
"""

from __future__ import annotations

from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict

from relaygw.observe.metrics.own_files import take_room

_NOBODY = 0
"""The process id in the name of the file that adds up: none has it."""
_ENTRY_BYTES = 32  # two numbers, a length and padding, beside the key


def fold(directory: Path, pid: int) -> None:
    """Add the files of an ended process to those of the others, and remove them.

    Nobody may read meanwhile. Raises OSError and leaves what was, when there is no room.
    """
    for kind in ("counter", "histogram", "gauge_max"):
        source = directory / f"{kind}_{pid}.db"
        if source.exists():
            _add(source, directory / f"{kind}_{_NOBODY}.db", is_sum=kind != "gauge_max")


def _add(source: Path, target: Path, *, is_sum: bool) -> None:
    numbers = _read(target) if target.exists() else {}
    for key, number in _read(source).items():
        before = numbers.get(key, 0.0)
        numbers[key] = before + number if is_sum else max(before, number)
    if numbers:
        _write(target, numbers)
    source.unlink()


def _read(path: Path) -> dict[str, float]:
    entries = MmapedDict.read_all_values_from_file(str(path))  # type: ignore[no-untyped-call]
    return {key: number for key, number, _, _ in entries}


def _write(path: Path, numbers: dict[str, float]) -> None:
    """Replace a file in one step, with no page that might have no room."""
    unfinished = path.with_suffix(".new")  # which nobody reads
    unfinished.unlink(missing_ok=True)
    room_bytes = sum(len(key.encode()) + _ENTRY_BYTES for key in numbers)
    take_room(unfinished, max(room_bytes, 4096))
    entries = MmapedDict(str(unfinished))  # type: ignore[no-untyped-call]
    for key, number in numbers.items():
        entries.write_value(key, number, 0.0)  # type: ignore[no-untyped-call]
    entries.close()  # type: ignore[no-untyped-call]
    unfinished.replace(path)
