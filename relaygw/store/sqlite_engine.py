"""A SQLite queue beside its stores: for migrations and copies, one transaction at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from relaygw.errors import StoreUnavailable
from relaygw.store.log_check import database_path
from relaygw.store.queue_file import QueueFile
from relaygw.store.queue_lock import lock_directory_of
from relaygw.store.sqlite import WriteLock, create_sqlite_engine


@contextmanager
def open_engine(url: str, *, is_for_writing: bool) -> Iterator[Engine]:
    """Lend an engine for one transaction beside those of stores; raises QueueDamaged.

    For writing the database is created where there is none, and left needing no log.
    """
    path = database_path(url)
    if is_for_writing:
        make_directory(path.parent)
    file = QueueFile(path)
    try:
        if is_for_writing:  # after the look at what lies there
            _create_private(path)
        begin = "BEGIN IMMEDIATE" if is_for_writing else "BEGIN"
        engine = create_sqlite_engine(url, begin=begin, file=file)
    except BaseException:
        file.close()
        raise
    try:
        if is_for_writing and file.has_mark:
            with _marking(engine, file):
                pass
        yield engine
        if is_for_writing and file.has_mark:
            with _marking(engine, file) as raw:
                file.finish(raw)
    finally:
        file.end_reading()
        engine.dispose()
        file.close()


@contextmanager
def _marking(engine: Engine, file: QueueFile) -> Iterator[Any]:
    """Renew the mark, which a new schema makes void; lend the connection, with the write lock."""
    lock = WriteLock(lock_directory_of(file.path), first_in_line=False)
    try:
        with lock, engine.connect() as connection:
            raw = connection.connection.dbapi_connection
            file.require_log(raw)
            yield raw
    finally:
        lock.close()


def make_directory(directory: Path) -> None:
    """Make the directory of a database, for its owner only."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(f"{directory}: {error.strerror}") from error
    if not os.access(directory, os.W_OK):
        raise StoreUnavailable(f"{directory}: this user may not write there")


def _create_private(path: Path) -> None:
    """Create a new database for its owner only; SQLite gives its log the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror}") from error
