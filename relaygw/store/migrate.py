"""Bringing a database's schema to the one this version knows.

Roles only compare one row (`check_schema`); alembic is imported when there is something
to do. The whole upgrade is one transaction: it is done or nothing happened.
"""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from relaygw.errors import SchemaMismatch, StoreUnavailable
from relaygw.store.sqlite import (
    DriverError,
    create_sqlite_engine,
    database_path,
    prepare_directory,
)
from relaygw.store.tables import SCHEMA_REVISION


def _scripts() -> Path:
    packaged = Path(__file__).parent.parent / "migrations"
    return packaged if packaged.is_dir() else packaged.parent.parent / "migrations"


def _explain(url: str, error: Exception) -> str:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return f"{database_path(url)}: {cause}; check the file, its owner and the space on its volume"


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _create_private(url: str) -> None:
    """Create a new database for its owner only; SQLite gives its log the same mode."""
    path = database_path(url)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror}") from error


def current_revision(url: str) -> str | None:
    """Return the schema revision of a database, None when it has no schema yet."""
    engine = create_sqlite_engine(url, begin="BEGIN")
    try:
        with engine.begin() as connection:
            return _revision(connection)
    except (DBAPIError, DriverError) as error:
        raise StoreUnavailable(_explain(url, error)) from error
    finally:
        engine.dispose()


def check_schema(url: str) -> None:
    """Raise SchemaMismatch unless the database has exactly the schema of this version."""
    found = current_revision(url)
    if found != SCHEMA_REVISION:
        raise SchemaMismatch(
            f"the queue has schema {found or 'none'}, this version needs {SCHEMA_REVISION}; "
            "run: relaygw db upgrade (an older relaygw cannot read a newer queue)"
        )


def upgrade(url: str) -> tuple[str | None, str]:
    """Bring the schema up to date; return the revisions before and after.

    Two upgrades at once are safe: the second waits for the first and finds nothing to do.
    """
    from alembic import command
    from alembic.config import Config

    prepare_directory(url)
    _create_private(url)
    engine = create_sqlite_engine(url, begin="BEGIN IMMEDIATE")
    try:
        with engine.begin() as connection:
            before = _revision(connection)
            if before != SCHEMA_REVISION:
                config = Config()
                config.set_main_option("script_location", str(_scripts()))
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
            return before, SCHEMA_REVISION
    except (DBAPIError, DriverError) as error:
        raise StoreUnavailable(_explain(url, error)) from error
    finally:
        engine.dispose()
