"""Copies of a SQLite queue to keep, and a queue from such a copy.

A copy is one moment of the queue, taken beside whoever writes; it needs no log. What was finished
then stays so. What was not may have been sent since, so that it is held in the queue made from it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, func, or_, update
from sqlalchemy.exc import DBAPIError

from relaygw import state_owner
from relaygw.errors import QueueDamaged, SchemaMismatch, StoreFull, StoreUnavailable
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.state import OPEN, DeliveryState
from relaygw.settings.secrets import draft_of
from relaygw.store import exchange, log_check, migrate
from relaygw.store.all_tables import whole_metadata
from relaygw.store.database import damage
from relaygw.store.held_causes import hold_all_besides, hold_columns
from relaygw.store.queue_lock import lock_directory_of
from relaygw.store.queue_tables import delivery
from relaygw.store.schema import REVISION, SCHEMA_REVISION
from relaygw.store.side_tables import notice
from relaygw.store.sqlite import is_damage
from relaygw.store.sqlite_engine import make_directory, open_engine

_OF_PROCESSES = ("instance", "permit", "duty", "web_session")
"""What was somebody's at the moment of a copy and is nobody's in a queue made from it."""
_WAITING = [DeliveryState.INCOMING.value, DeliveryState.DEFERRED.value]
_RESTORED = HoldCause(HoldCode.RESTORED)
_STAY_HELD = ("operator", "poison", "in_doubt", "lost_provider", "recovered", "restored")
"""Codes of holds that only people end; the others end by themselves."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a database of a queue."""

    messages: int
    unfinished: int
    """Deliveries that are not."""
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a restoring came to."""

    contents: Contents
    held: int
    aside: Path | None
    """Where the database is now that was there before."""


def back_up(url: str, target: Path) -> Contents:
    """Write a copy of a queue, which may be in use, and look whether it is whole.

    It gets its name once all of it is on disk. The queue is opened by its owner, the copy belongs
    to the caller. Raises FileExistsError, OSError, QueueDamaged and StoreUnavailable.
    """
    with state_owner.as_caller():
        if target.exists():
            raise FileExistsError(target)
    try:
        with open_engine(url, is_for_writing=False) as engine, engine.connect() as connection:
            raw: Any = connection.connection.dbapi_connection
            # from here on all of its files are open: as another user none is
            raw.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if raw.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                raise StoreUnavailable(
                    f"{url}: has no write-ahead log; start relaygw, it makes one"
                )
            with state_owner.as_caller():
                return _copy(raw, target)
    except (DBAPIError, log_check.DriverError) as error:
        cause = getattr(error, "orig", error)  # on connecting it is in another one
        if is_damage(cause):
            raise QueueDamaged(damage(str(log_check.database_path(url)), str(cause))) from error
        if "full" in str(cause):
            raise StoreFull(f"{target}: {cause}; free some space, and run it again") from error
        raise StoreUnavailable(f"{target}: {cause}; is there enough free space?") from error


def _copy(raw: Any, target: Path) -> Contents:
    with draft_of(target) as file:
        copy = Path(file.name)
        raw.execute("VACUUM INTO ?", (file.name,))
        contents = look_into(copy)
        log_check.sync(copy)
        os.link(copy, target)  # never over another file
    log_check.sync(target.parent)
    return contents


def look_into(copy: Path) -> Contents:
    """Read all of a copy, which may have its log beside it; QueueDamaged for what is not whole."""
    if not stat.S_ISREG(copy.stat().st_mode):
        raise QueueDamaged(f"{copy}: is not a regular file; name one that relaygw db backup wrote")
    try:
        with copy.open("rb"):
            pass
        with _reading(copy, has_log=_needs_log(copy)) as connection:
            for problem in exchange.page_problems(copy, connection):
                raise QueueDamaged(f"{problem}; it cannot be restored, use an older one")
            return _contents(connection)
    except log_check.DriverError as error:
        raise _is_none(copy, error) from error


def _needs_log(copy: Path) -> bool:
    """Return whether a copy is one only with its log, which is there; raises QueueDamaged."""
    if log_check.mark_of(copy) is None:
        return False
    if (
        log_check.log_of(copy).exists()
        and log_check.check_log(copy, is_alone=True).state is log_check.LogState.WHOLE
    ):
        return True
    raise QueueDamaged(
        f"{copy}: was copied while relaygw used it, and may lack mail that was in its log "
        f"({log_check.log_of(copy).name}, from the same time), which is not complete beside it; "
        "put it there, or make copies with: relaygw db backup FILE"
    )


@contextlib.contextmanager
def _reading(copy: Path, *, has_log: bool) -> Iterator[Any]:
    """Lend a connection that leaves nothing beside a copy."""
    had_index = log_check.index_of(copy).exists()
    try:
        with contextlib.closing(log_check.read_only(copy, as_it_lies=not has_log)) as connection:
            yield connection
    finally:
        if has_log and not had_index:
            log_check.index_of(copy).unlink(missing_ok=True)


def _is_none(copy: Path, error: object) -> QueueDamaged:
    return QueueDamaged(
        f"{copy}: is not a copy of a relaygw queue ({error}); name one that relaygw db backup wrote"
    )


def restore(
    url: str,
    source: Path,
    *,
    is_released: bool,
    now_ms: int,
    may_replace: Callable[[Contents | None], bool],
) -> Restored | None:
    """Put a queue made from a copy into the place of a queue, which is moved aside.

    What was not finished is held, since it may have been sent after the copy was taken; with
    `is_released` only what was being sent at that moment is. `may_replace` is asked about a queue
    that has mail, or cannot be read (None), and None is returned if it says no. Raises
    StoreUnavailable while a gateway runs, on either of them, QueueDamaged for a damaged copy, and
    SchemaMismatch for one of a later version.
    """
    path = log_check.database_path(url)
    with contextlib.ExitStack() as held:
        with state_owner.as_reader_of(source):
            if source.exists() and path.exists() and source.samefile(path):
                raise QueueDamaged(f"{source}: is the queue itself; name a copy of it")
            if lock_directory_of(source).is_dir():
                held.enter_context(exchange.sole_user(source))
            contents = look_into(source)
        return _restore(path, source, contents, is_released, now_ms, may_replace)


def _restore(
    path: Path,
    source: Path,
    contents: Contents,
    is_released: bool,
    now_ms: int,
    may_replace: Callable[[Contents | None], bool],
) -> Restored | None:
    if contents.revision > SCHEMA_REVISION:
        raise SchemaMismatch(
            f"{source}: has schema {contents.revision}, this version knows {SCHEMA_REVISION}; "
            "restore it with the version that wrote it"
        )
    make_directory(path.parent)
    agreed: tuple[Contents | None, ...] = ()
    while True:
        with exchange.sole_user(path):
            exchange.undo_cut(path)
            is_there = path.exists() or log_check.log_of(path).exists()
            present = _present(path) if is_there else None
            if not is_there or present in agreed or (present and present.messages == 0):
                aside = exchange.aside_name(path, exchange.REPLACED, now_ms) if is_there else None
                held = _replace(path, source, aside, is_released=is_released, now_ms=now_ms)
                return Restored(contents=contents, held=held, aside=aside)
        # nobody is kept waiting meanwhile; what has come since is asked about again
        if not may_replace(present):
            return None
        agreed = (present,)


def _replace(
    path: Path, source: Path, aside: Path | None, *, is_released: bool, now_ms: int
) -> int:
    """Put a queue made from a copy in place, alone; return how many deliveries are held."""
    new = path.with_name(path.name + ".restoring")
    with exchange.making(path, new):
        with state_owner.as_reader_of(source):
            has_log = log_check.mark_of(source) is not None
            has_progress = log_check.progress_file_of(source).exists()
        _copy_private(source, new)
        if has_log:
            _copy_private(log_check.log_of(source), log_check.log_of(new))
            if has_progress:
                lock_directory_of(new).mkdir(mode=0o700)
                _copy_private(log_check.progress_file_of(source), log_check.progress_file_of(new))
        migrate.upgrade(f"sqlite:///{new}")
        try:
            with (
                open_engine(f"sqlite:///{new}", is_for_writing=True) as engine,
                engine.begin() as connection,
            ):
                held = _hold(connection, is_released=is_released, now_ms=now_ms)
        except DBAPIError as error:
            if "full" in str(error.orig):
                raise StoreFull(
                    f"{new}: {error.orig}; free some space, and run it again"
                ) from error
            raise _is_none(source, error.orig) from error
        exchange.take_mode(path, new)
        if aside is not None:
            exchange.fold_log(path)
        exchange.publish(path, new, aside or path)
    return held


def _contents(connection: Any) -> Contents:
    marks = ", ".join("?" * len(OPEN))
    (messages,) = connection.execute("SELECT count(*) FROM message").fetchone()
    (unfinished,) = connection.execute(
        f"SELECT count(*) FROM delivery WHERE state IN ({marks})", [state.value for state in OPEN]
    ).fetchone()
    revisions = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    if len(revisions) != 1 or not REVISION.fullmatch(str(revisions[0][0])):
        raise log_check.driver.DatabaseError("its schema is not a relaygw schema")
    return Contents(messages, unfinished, revisions[0][0])


def _present(path: Path) -> Contents | None:
    """Return the contents of the queue that is there, None where that is unknown."""
    try:
        with contextlib.closing(log_check.read_only(path)) as connection:
            return _contents(connection)
    except log_check.DriverError:
        return None


def _copy_private(source: Path, new: Path) -> None:
    with state_owner.as_reader_of(source):
        file = source.open("rb")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as target, file:
        shutil.copyfileobj(file, target, 1 << 20)


def _hold(connection: Connection, *, is_released: bool, now_ms: int) -> int:
    """Hold what may have been sent since, and forget who had what; return how many are held."""
    for name in _OF_PROCESSES:
        connection.execute(delete(whole_metadata().tables[name]))
    may_go, beside = delivery.c.state == DeliveryState.ACTIVE.value, 0
    if not is_released:
        is_held = delivery.c.state == DeliveryState.HELD.value
        ends = is_held & func.coalesce(delivery.c.hold_code, "").not_in(_STAY_HELD)
        may_go = or_(may_go, delivery.c.state.in_(_WAITING))
        beside = hold_all_besides(connection, ends, _RESTORED, now_ms)
        # their senders may have been told since
        made = {"made_at_ms": now_ms, "detail": "none is sent: the queue was restored"}
        connection.execute(update(notice).where(notice.c.made_at_ms.is_(None)).values(made))
    held = {
        "state": DeliveryState.HELD.value,
        "held_at_ms": now_ms,
        "changed_at_ms": now_ms,
        "lease": None,
        **hold_columns(_RESTORED),
    }
    return beside + connection.execute(update(delivery).where(may_go).values(held)).rowcount
