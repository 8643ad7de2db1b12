"""Bringing a database's schema to the one this version knows.

Roles only compare one row (`check_schema`); alembic is imported when there is something
to do. The whole upgrade is one transaction: it is done or nothing happened.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from relaygw.errors import SchemaMismatch, StoreUnavailable
from relaygw.store.sqlite import create_sqlite_engine, prepare_directory
from relaygw.store.tables import SCHEMA_REVISION


def _scripts() -> Path:
    packaged = Path(__file__).parent.parent / "migrations"
    return packaged if packaged.is_dir() else packaged.parent.parent / "migrations"


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def current_revision(url: str) -> str | None:
    """Return the schema revision of a database, None when it has no schema yet."""
    engine = create_sqlite_engine(url, begin="BEGIN")
    try:
        with engine.begin() as connection:
            return _revision(connection)
    except DBAPIError as error:
        raise StoreUnavailable(f"{url}: {error.orig}") from error
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
    except DBAPIError as error:
        raise StoreUnavailable(f"{url}: {error.orig}") from error
    finally:
        engine.dispose()
