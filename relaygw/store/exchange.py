"""Another database in the place of a SQLite queue; nothing is overwritten.

It is written beside the old one, which is moved aside once all of the new one is on disk. A run
that was cut short is begun anew by the next.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from relaygw.errors import QueueDamaged, StoreUnavailable
from relaygw.store.log_check import DriverError, LogState, check_log, driver, index_of, log_of, sync
from relaygw.store.queue_lock import is_alone, lock_directory_of, open_users

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_ASIDE = DAMAGED, REPLACED = "damaged", "replaced"
"""How an old database is called where it was moved to, with the time."""


@contextmanager
def sole_user(path: Path) -> Iterator[None]:
    """Keep everybody else from opening a queue; raises StoreUnavailable where somebody has it."""
    users = open_users(path)
    try:
        if not is_alone(users):
            raise StoreUnavailable(
                f"{path}: relaygw, or one of its commands, has the queue open; stop relaygw first"
            )
        yield
    except OSError as error:
        raise StoreUnavailable(f"{error.filename or path}: {error.strerror}") from error
    finally:
        os.close(users)


def page_problems(path: Path, connection: Any) -> Iterator[str]:
    """Yield what SQLite finds wrong with the pages of a database; raises DriverError."""
    for (problem,) in connection.execute("PRAGMA integrity_check(20)").fetchall():
        if problem != "ok":
            yield f"{path}: {' '.join(problem.split())}"


def aside_name(path: Path, how: str, now_ms: int) -> Path:
    """Return where a database, or what is left of it, is moved to."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now_ms / 1000))
    return _unused(path.with_name(f"{path.name}.{how}-{stamp}"))


def _unused(path: Path) -> Path:
    number, found = 1, path
    while found.exists():
        number, found = number + 1, path.with_name(f"{path.name}-{number + 1}")
    return found


def remove(path: Path) -> None:
    """Remove a database that nobody has open, with all that belongs to it."""
    for file in (path, log_of(path), index_of(path)):
        file.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        for file in lock_directory_of(path).iterdir():
            file.unlink()
        lock_directory_of(path).rmdir()


def take_mode(old: Path, new: Path) -> None:
    """Give a new database the mode of the old one."""
    if old.exists():
        new.chmod(old.stat().st_mode & 0o777)


@contextmanager
def making(path: Path, new: Path) -> Iterator[None]:
    """Make a database beside the one that it replaces; nothing of it stays if that fails.

    TERM and HUP end it so as well, in the thread that gets signals.
    """
    is_main = threading.current_thread() is threading.main_thread()
    before = {signals: signal.getsignal(signals) for signals in _ENDING if is_main}
    for signals in (number for number, how in before.items() if how is signal.SIG_DFL):
        signal.signal(signals, lambda number, _: sys.exit(128 + number))
    remove(new)
    try:
        yield
    except BaseException:
        remove(new)
        undo_cut(path)
        raise
    finally:
        for signals, how in before.items():
            signal.signal(signals, how)


def fold_log(path: Path) -> None:
    """Move the log of a database that nobody has open into it: it is whole alone from then on.

    A log that is not all of its own stays as it is, and so do both where that fails.
    """
    with contextlib.suppress(QueueDamaged, DriverError):
        finding = check_log(path, is_alone=True)
        if finding.state is LogState.WHOLE and finding.is_marked and log_of(path).exists():
            with contextlib.closing(driver.connect(path, isolation_level=None)) as connection:
                for pragma in (
                    "synchronous = FULL",
                    "user_version = 0",
                    "wal_checkpoint(TRUNCATE)",
                ):
                    connection.execute(f"PRAGMA {pragma}").fetchall()


def publish(path: Path, new: Path, aside: Path) -> None:
    """Move the old database aside with its log, and the new one into its place.

    The log goes first: SQLite would put an old one into a new database. Cut short between, the
    old database is without its log and refused; `undo_cut` gives it back. Where there is no old
    one, an old log is moved all the same.
    """
    if log_of(new).exists():
        raise StoreUnavailable(f"{log_of(new)}: could not be merged into {new.name}; try again")
    sync(new)
    if path.exists():
        os.link(path, aside)
    if log_of(path).exists():
        log_of(path).rename(log_of(aside))
    index_of(path).unlink(missing_ok=True)
    sync(path.parent)
    new.rename(path)
    sync(path.parent)
    locks = lock_directory_of(path)
    (locks / "moved").unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.truncate(locks / "progress", 0)
    remove(new)


def undo_cut(path: Path) -> None:
    """Give a database its log back that a run moved aside before it was cut short."""
    for aside in (file for how in _ASIDE for file in path.parent.glob(f"{path.name}.{how}-*")):
        if path.exists() and not aside.name.endswith("-wal") and aside.samefile(path):
            if log_of(aside).exists():
                log_of(aside).rename(log_of(path))
            aside.unlink()
