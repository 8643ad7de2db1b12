"""Bringing a database's schema to the one this version knows, in one transaction.

Roles only compare one row (`check_schema`), a start and `relaygw db check` all tables, columns and
indexes; alembic is imported when there is something to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from relaygw.errors import NewerSchema, QueueDamaged, SchemaMismatch, StoreUnavailable
from relaygw.store.database import Place, damage
from relaygw.store.queue_tables import HAS_PUT_OFF, HAS_RARE_OUTCOME
from relaygw.store.schema import PARTS, REVISION, SCHEMA_REVISION, missing_parts

_DEADLOCK_TRIES = 10
_DEADLOCK = "40P01"  # as PostgreSQL says it
_UPGRADE_LOCK = 7_235_101  # any number: upgrades of one PostgreSQL database take turns
# what lies in a PostgreSQL database, but for what belongs to it or came with an extension
_RELATIONS = r"""
    SELECT n.nspname || '.' || c.relname
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname NOT LIKE 'pg\_%'
    AND n.nspname <> 'information_schema' AND NOT EXISTS (
        SELECT FROM pg_depend d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    ORDER BY 1
"""
_SHOWN_NAMES = 3
_BESIDE = {
    "recipient_outcome": "recipient (state, changed_at_ms, queue_id)"
    f" WHERE {HAS_RARE_OUTCOME.text.replace('recipient.', '')}",
    "attempt_put_off": "attempt (at_ms, provider, queue_id, state)"
    f" WHERE {HAS_PUT_OFF.text.replace('attempt.', '')}",
}
_HAS_REVISION = {
    "sqlite": "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'",
    "postgresql": "SELECT 1 WHERE to_regclass('alembic_version') IS NOT NULL",
}
_STATE_OF_INDEX = """
    SELECT indisvalid, EXISTS (
        SELECT 1 FROM pg_stat_progress_create_index WHERE index_relid = indexrelid
    ) AS is_being_made
    FROM pg_index WHERE indexrelid = to_regclass(:name)
"""


def scripts() -> Path:
    """Return where migrations are, of the package or beside its source."""
    packaged = Path(__file__).parent.parent / "migrations"
    return packaged if packaged.is_dir() else packaged.parent.parent / "migrations"


def _revision(connection: Connection) -> str | None:
    # without SQLAlchemy's compiler: each delivery worker asks at its start
    ask = connection.exec_driver_sql
    if ask(_HAS_REVISION[connection.dialect.name]).first() is None:
        return None
    found: str | None = ask("SELECT version_num FROM alembic_version").scalar()
    return found


@contextmanager
def _engine(place: Place, *, is_for_writing: bool) -> Iterator[Engine]:
    """Lend an engine; what it leaves of a SQLite queue is whole."""
    if place.is_postgres:
        from relaygw.store.postgres import create_postgres_engine

        engine = create_postgres_engine(place)
        try:
            yield engine
        finally:
            engine.dispose()
        return
    from relaygw.store.sqlite_engine import open_engine

    with open_engine(place.url, is_for_writing=is_for_writing) as engine:
        yield engine


@contextmanager
def transaction(place: Place, *, is_for_writing: bool) -> Iterator[Connection]:
    """Lend a connection in a transaction of its own; raises StoreUnavailable, QueueDamaged."""
    from relaygw.store.log_check import DriverError
    from relaygw.store.sqlite import is_damage

    try:
        with _engine(place, is_for_writing=is_for_writing) as engine, engine.begin() as connection:
            if place.is_postgres and is_for_writing:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})"))
            yield connection
    except (DBAPIError, DriverError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if not place.is_postgres and is_damage(cause):
            raise QueueDamaged(damage(str(place), str(cause))) from error
        raise StoreUnavailable(place.explain(str(cause).strip())) from error


def current_revision(place: Place | str) -> str | None:
    """Return the schema revision of a database, None when it has no schema yet or is not there."""
    from relaygw.store.log_check import database_path

    place = Place.of(place)
    if not place.is_postgres and not database_path(place.url).exists():
        return None
    with transaction(place, is_for_writing=False) as connection:
        return _revision(connection)


def check_schema(place: Place | str) -> None:
    """Raise SchemaMismatch unless the database says that it has the schema of this version."""
    _check_revision(current_revision(place))


def check_parts(place: Place) -> None:
    """Raise SchemaMismatch unless the database has the schema of this version, and all of it.

    But for indexes that an upgrade of PostgreSQL makes beside those who write.
    """
    with transaction(place, is_for_writing=False) as connection:
        _check_parts(place, connection)


def _check_parts(place: Place, connection: Connection) -> None:
    _check_revision(_revision(connection))
    if missing := missing_parts(
        connection.exec_driver_sql(PARTS[connection.dialect.name]),
        beside=_BESIDE if place.is_postgres else (),
    ):
        remedy = (
            "run the version that made it until its mail is sent, then name an empty database"
            if place.is_postgres
            else "save what is readable: relaygw db recover"
        )
        raise SchemaMismatch(
            f"the queue says that it has schema {SCHEMA_REVISION}, and lacks {', '.join(missing)}: "
            "it was made by a version between two releases, or changed by hand; restore a backup, "
            f"or {remedy}"
        )


def _check_revision(found: str | None) -> None:
    if found is not None and not REVISION.fullmatch(found):
        raise SchemaMismatch(
            f"the database has schema {found}, which this version does not know: another version "
            "or another program made it; name an empty database in queue.url"
        )
    if found is not None and found > SCHEMA_REVISION:
        raise NewerSchema(
            f"the queue has schema {found}, newer than {SCHEMA_REVISION}, which is the newest that "
            "this version knows; install the version that made it, or let that one send its mail "
            "and start this one with an empty queue"
        )
    if found != SCHEMA_REVISION:
        raise SchemaMismatch(
            f"the queue has schema {found or 'none'}, this version needs {SCHEMA_REVISION}; "
            "run: relaygw db upgrade"
        )


def set_up_if_empty(place: Place) -> bool:
    """Make the schema in an empty PostgreSQL database; return whether it was one.

    Of several who do so at once one does it. Raises SchemaMismatch for a database that has another
    schema, or anything of somebody else: nothing is changed there.
    """
    if current_revision(place) is None:
        with transaction(place, is_for_writing=True) as connection:
            if _revision(connection) is None:
                _refuse_relations(connection)
                _run_migrations(connection)
                return True
    check_parts(place)
    return False


def _refuse_relations(connection: Connection) -> None:
    names = list(connection.execute(text(_RELATIONS)).scalars())
    if names:
        shown = ", ".join(names[:_SHOWN_NAMES])
        more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        raise SchemaMismatch(
            f"the database has no queue and is not empty ({shown}{more}): name an empty one in "
            "queue.url, or create the queue in it: relaygw db upgrade"
        )


def upgrade(place: Place | str) -> tuple[str | None, str]:
    """Bring the schema up to date; return the revisions before and after. Two at once are safe.

    Raises SchemaMismatch where something of it lacks then.

    On PostgreSQL an index over many rows is made after that, beside those who write; cut short, it
    is made by the next call.
    """
    found = _upgrade_patiently(Place.of(place))
    if Place.of(place).is_postgres:
        _make_indexes_beside(Place.of(place))
    return found


def _upgrade_patiently(place: Place) -> tuple[str | None, str]:
    for tries_left in range(_DEADLOCK_TRIES - 1, -1, -1):
        try:
            return _upgrade(place)
        except StoreUnavailable as error:
            # writers that go on meanwhile may lock the same tables in another order
            cause = getattr(error.__cause__, "orig", None)
            if tries_left == 0 or getattr(cause, "sqlstate", None) != _DEADLOCK:
                raise
    raise AssertionError("unreachable")


def _upgrade(place: Place) -> tuple[str | None, str]:
    with transaction(place, is_for_writing=True) as connection:
        before = _revision(connection)
        if (before or "") < SCHEMA_REVISION:
            _run_migrations(connection)
        _check_parts(place, connection)
        return before, SCHEMA_REVISION


def _make_indexes_beside(place: Place) -> None:
    """Make what a migration leaves to be made without keeping writers waiting, where it lacks."""
    try:
        with _engine(place, is_for_writing=True) as engine, engine.connect() as connected:
            connection = connected.execution_options(isolation_level="AUTOCOMMIT")
            for name, statement in _BESIDE.items():
                found = connection.execute(text(_STATE_OF_INDEX), {"name": name}).first()
                if found is not None and not found.indisvalid and not found.is_being_made:
                    connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))
                    found = None
                if found is None:
                    make = f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {statement}"
                    connection.execute(text(make))
    except DBAPIError as error:
        raise StoreUnavailable(place.explain(str(error.orig).strip())) from error


def _run_migrations(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(scripts()))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
