"""Numbers for Prometheus: the files that the processes of one supervisor count into, and their sum.

    STATE_DIR/metrics/          of all supervisors of a state directory
        5b1f…/                  of one of them: locked by it and all its processes
            counter_4711.db     what one process counts
            counter_0.db        what those that have ended counted
            folding             locked while a file of the second kind changes, and while read

The kernel lets a lock go with the last process that has it, so what nobody holds is over. A gateway
that is reloaded each hour for a year has ten thousand processes, so what one counted is added to
one file of its kind when it ends.

Files are mapped into memory, and a mapped page that has no room on the disk ends the process by
SIGBUS when it is written. So the room is taken before anything is counted: on a full disk that
fails as an error which the caller can live without. A process without its files counts nothing,
and mail goes on. Only this module and `counters` know prometheus_client.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import values
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from relaygw.observe.maillog import MailLog

_ROOM_BYTES = {
    "counter": 2**19,  # about 2,000 numbers
    "histogram": 2**19,
    "gauge_livesum": 2**16,
    "gauge_max": 2**16,
}
"""By what the names of files begin with; before the process id stands a `_`."""
_UNFINISHED = ".unfinished"
_NOBODY = 0  # the process id in the name of the file that adds up: none has it
_ENTRY_BYTES = 32  # two numbers, a length and padding, beside the key


def metrics_root(state_dir: Path) -> Path:
    """Return the directory below which all supervisors of a state directory have theirs."""
    return state_dir / "metrics"


# --- one process ---------------------------------------------------------------------------


def can_count(directory: Path | None, log: MailLog) -> bool:
    """True once this process may count in `directory`; the log says why it may not."""
    if directory is None:
        return False
    try:
        count_in(directory)
    except OSError as error:
        log.note("master", f"warning: this process has no metrics, {directory}: {error.strerror}")
        return False
    return True


def count_in(directory: Path) -> None:
    """Count into files of this process's own from now on; raises OSError: they have no room."""
    for kind, room_bytes in _ROOM_BYTES.items():
        _take_room(directory / f"{kind}_{os.getpid()}.db", room_bytes)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    # the library chooses when it is imported, which was before the fork
    values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]


def _take_room(path: Path, size_bytes: int) -> None:
    """Make `path` a file with all its blocks, named only once it is whole; raises OSError."""
    made = path if path.exists() else path.with_suffix(_UNFINISHED)
    descriptor = os.open(made, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
        made.rename(path)
    except OSError:
        made.unlink()
        raise
    finally:
        os.close(descriptor)


# --- all processes of a supervisor ---------------------------------------------------------


def open_run_files(state_dir: Path, log: MailLog) -> RunFiles | None:
    """Return the files of a supervisor's processes, None when they cannot be."""
    try:
        return RunFiles(state_dir)
    except OSError as error:
        log.note("master", f"warning: no metrics of mail, {state_dir}: {error.strerror}")
        return None


class RunFiles:
    """The files of one supervisor's processes; raises OSError when they cannot be."""

    def __init__(self, state_dir: Path) -> None:
        root = metrics_root(state_dir)
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = root / secrets.token_hex(6)
        self._ended: set[int] = set()
        with _locked(root, fcntl.LOCK_EX):  # another one may start at this moment
            for old in _subdirectories(root):
                if _is_over(old):
                    shutil.rmtree(old, ignore_errors=True)
            self.directory.mkdir(mode=0o700)
            # inherited by every process that is forked from here on
            self._alive = os.open(self.directory, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._alive, fcntl.LOCK_SH)
        (self.directory / "folding").touch(mode=0o600)

    def close(self) -> None:
        """Let go of the directory; the next supervisor removes it once no process has it."""
        os.close(self._alive)

    def end(self, pid: int) -> None:
        """Keep what an ended process counted; never waits or fails, the next end does the rest."""
        self._ended.add(pid)
        with contextlib.suppress(OSError):
            for name in (f"gauge_live*_{pid}.db", f"*_{pid}{_UNFINISHED}"):
                for path in self.directory.glob(name):
                    path.unlink()
        with (
            contextlib.suppress(OSError),
            _locked(self.directory / "folding", fcntl.LOCK_EX | fcntl.LOCK_NB),
        ):
            for ended_pid in sorted(self._ended):
                _fold(self.directory, ended_pid)
                self._ended.discard(ended_pid)


@contextmanager
def files_to_read(state_dir: Path) -> Iterator[list[str]]:
    """Give the paths of all files that count now; they stay as they are within the block."""
    with contextlib.ExitStack() as stack:
        paths: list[str] = []
        for directory in _subdirectories(metrics_root(state_dir)):
            with contextlib.suppress(FileNotFoundError):
                if not _is_over(directory):
                    stack.enter_context(_locked(directory / "folding", fcntl.LOCK_SH))
                    paths += map(str, sorted(directory.glob("*.db")))
        yield paths


def _subdirectories(root: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(path for path in root.iterdir() if path.is_dir())
    return []


def _is_over(directory: Path) -> bool:
    """True when no process has the directory any more."""
    try:
        with _locked(directory, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return True
    except BlockingIOError:
        return False


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


# --- what ended processes counted ----------------------------------------------------------


def _fold(directory: Path, pid: int) -> None:
    """Add an ended process's files to the others', while nobody reads; OSError: no room."""
    for kind in ("counter", "histogram", "gauge_max"):  # what lasts
        source = directory / f"{kind}_{pid}.db"
        if source.exists():
            _add(source, directory / f"{kind}_{_NOBODY}.db", is_sum=kind != "gauge_max")


def _add(source: Path, target: Path, *, is_sum: bool) -> None:
    numbers = _read(target) if target.exists() else {}
    try:
        counted = _read(source)
    except (struct.error, RuntimeError, UnicodeDecodeError):  # no reason to end the supervisor
        counted = {}
    for key, number in counted.items():
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
    _take_room(unfinished, max(room_bytes, 4096))
    entries = MmapedDict(str(unfinished))  # type: ignore[no-untyped-call]
    for key, number in numbers.items():
        entries.write_value(key, number, 0.0)  # type: ignore[no-untyped-call]
    entries.close()  # type: ignore[no-untyped-call]
    unfinished.replace(path)


# --- what Prometheus is told ------------------------------------------------------------------

Numbers = dict[tuple[str, ...], float]  # numbers by the values of labels


@dataclass(frozen=True, slots=True, kw_only=True)
class GaugeFamily:
    """One gauge: its name without the prefix `relaygw_`, and numbers in the order of `labels`."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()
    numbers: Numbers = field(default_factory=dict)


def exposition(state_dir: Path, gauges: Iterable[GaugeFamily], *, accept: str) -> tuple[bytes, str]:
    """Return the text for Prometheus and its content type, of all processes of the host; blocks."""
    encode, content_type = choose_encoder(accept)
    with files_to_read(state_dir) as paths:
        counted = list(MultiProcessCollector.merge(paths))  # type: ignore[no-untyped-call]
    return encode(_Families([*counted, *map(_family, gauges)])), content_type


class _Families(list[Metric]):
    def collect(self) -> list[Metric]:
        return self


def _family(gauge: GaugeFamily) -> Metric:
    family = GaugeMetricFamily(f"relaygw_{gauge.name}", gauge.meaning, labels=gauge.labels)
    for labels, number in gauge.numbers.items():
        family.add_metric(labels, number)
    return family
