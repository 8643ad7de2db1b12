"""Numbers for Prometheus: the files that the processes of one supervisor count into.

    STATE_DIR/metrics/          of all supervisors of a state directory
        5b1f…/                  of one of them: locked by it and all its processes
            4711.json           what one process counts
            ended.json          what those that have ended counted
            folding             locked while the second kind of file changes, and while read

The kernel lets a lock go with the last process that has it, so what nobody holds is over. A gateway
that is reloaded each hour for a year has ten thousand processes, so what one counted is added to
one file when it ends.

A file is replaced as a whole, so that a reader finds the old or the new one. On a full disk the old
one stays, and mail goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from relaygw.observe.maillog import MailLog
from relaygw.observe.tallies import Tally, TallyKind, decode_tallies, encode_tallies, merge_tallies

_ENDED = "ended.json"
_UNFINISHED = ".unfinished"


def metrics_root(state_dir: Path) -> Path:
    """Return the directory below which all supervisors of a state directory have theirs."""
    return state_dir / "metrics"


# --- one process ---------------------------------------------------------------------------


class MetricsFile:
    """The metrics that this process counts, and the file they are written to."""

    def __init__(self, directory: Path, log: MailLog) -> None:
        self._path = directory / f"{os.getpid()}.json"
        self._log = log
        self._tallies: list[Tally] = []
        self._written = b""
        self._is_written = True

    def tally(
        self,
        name: str,
        meaning: str,
        *labels: str,
        kind: TallyKind = TallyKind.COUNTER,
        bounds: tuple[float, ...] = (),
        from_zero: Iterable[tuple[str, ...]] = (),
    ) -> Tally:
        """A new metric, with rows of zero for some values of its labels."""
        tally = Tally(name, meaning, kind, labels, bounds)
        for values in from_zero:
            tally.row(values)
        self._tallies.append(tally)
        return tally

    def write(self) -> None:
        """Write what has changed; when it cannot be, the log says so once, and later does it."""
        encoded = encode_tallies(self._tallies)
        if encoded == self._written:
            return
        try:
            _replace(self._path, encoded)
        except OSError as error:
            if self._is_written:
                text = f"warning: metrics are not written, {self._path}: {error.strerror}"
                self._log.note("master", text)
            self._is_written = False
        else:
            self._written, self._is_written = encoded, True


def open_metrics(directory: Path | None, log: MailLog) -> MetricsFile | None:
    """The metrics of this process, None without a directory for them."""
    return None if directory is None else MetricsFile(directory, log)


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
            (self.directory / f"{pid}{_UNFINISHED}").unlink(missing_ok=True)
        with (
            contextlib.suppress(OSError),
            _locked(self.directory / "folding", fcntl.LOCK_EX | fcntl.LOCK_NB),
        ):
            for ended_pid in sorted(self._ended):
                _fold(self.directory, ended_pid)
                self._ended.discard(ended_pid)


@contextmanager
def files_to_read(state_dir: Path) -> Iterator[list[Path]]:
    """Give the paths of all files that count now; they stay as they are within the block."""
    with contextlib.ExitStack() as stack:
        paths: list[Path] = []
        for directory in _subdirectories(metrics_root(state_dir)):
            with contextlib.suppress(FileNotFoundError):
                if not _is_over(directory):
                    stack.enter_context(_locked(directory / "folding", fcntl.LOCK_SH))
                    paths += sorted(directory.glob("*.json"))
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


# --- what was counted ----------------------------------------------------------------------


def counted(state_dir: Path) -> list[Tally]:
    """What all processes of the host have counted; blocks."""
    with files_to_read(state_dir) as paths:
        return list(merge_tallies(chain.from_iterable(map(_read, paths))).values())


def _fold(directory: Path, pid: int) -> None:
    """Add what an ended process counted to the others', while nobody reads; OSError: no room."""
    source, target = directory / f"{pid}.json", directory / _ENDED
    lasting = [tally for tally in _read(source) if tally.kind is not TallyKind.LIVE]
    if lasting:
        _replace(target, encode_tallies(merge_tallies([*_read(target), *lasting]).values()))
    source.unlink(missing_ok=True)


def _read(path: Path) -> list[Tally]:
    """Read one file; what is damaged has counted nothing, which is no reason to end a process."""
    try:
        return decode_tallies(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return []


def _replace(path: Path, content: bytes) -> None:
    """Replace a file as a whole; raises OSError: then the old one stays."""
    unfinished = path.with_suffix(_UNFINISHED)
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
