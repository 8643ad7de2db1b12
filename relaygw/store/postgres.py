"""The store on PostgreSQL: many instances share one queue.

A commit is durable when it returns: `fsync` and `synchronous_commit` are asserted on every
connection. When the server goes away a write is tried again for some seconds; whether a lost
commit happened is looked up first, so that nothing is stored twice and nobody is told wrongly.
The database's clock decides about leases, rates and quotas.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg.adapt import Buffer
from psycopg.types.string import StrDumper, StrDumperUnknown
from sqlalchemy import (
    BigInteger,
    Connection,
    Engine,
    cast,
    create_engine,
    event,
    extract,
    func,
    select,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.elements import ColumnElement

from relaygw.errors import AlreadyAccepted, StoreFull, StoreUnavailable, Unstorable
from relaygw.mail.envelope import AcceptedMessage
from relaygw.store.batch import RAW_CURSOR
from relaygw.store.place import Place
from relaygw.store.sql import SqlStore, Write
from relaygw.store.tables import message

RECONNECT_S = 10.0
"""How long a write waits for a server that went away before it fails."""
_RECONNECT_LADDER_S = (0.05, 0.1, 0.2, 0.5, 1.0)
_CONNECT_ARGUMENTS = {
    "application_name": "relaygw",
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "prepare_threshold": None,  # a pooler may hand the next transaction to another session
}
_UNSAFE = {"fsync": "off", "synchronous_commit": "off"}

T = TypeVar("T")


def create_postgres_engine(place: Place) -> Engine:
    """Return an engine; the password is read for each connection.

    Connecting raises StoreUnavailable when the server may lose what it was told to keep, unless
    the place allows that.
    """
    engine = create_engine(
        make_url(place.url).set(drivername="postgresql+psycopg"),
        pool_size=5,
        max_overflow=20,
        connect_args=_CONNECT_ARGUMENTS,
    )

    def give_password(_dialect: Any, _record: Any, _args: Any, parameters: dict[str, Any]) -> None:
        secret = place.password()
        if secret is not None:
            parameters["password"] = secret

    def configure(connection: psycopg.Connection[Any], record: ConnectionPoolEntry) -> None:
        record.info[RAW_CURSOR] = psycopg.RawCursor
        connection.adapters.register_dumper(str, _StorableStr)
        connection.adapters.register_dumper(str, _StorableStrUnknown)
        if not place.allow_unsafe:
            _check_durability(connection)

    event.listen(engine, "do_connect", give_password)
    event.listen(engine, "connect", configure)
    return engine


def _check_durability(connection: psycopg.Connection[Any]) -> None:
    for name, bad in _UNSAFE.items():
        row = connection.execute(f"SHOW {name}").fetchone()
        if row is not None and row[0] == bad:
            raise StoreUnavailable(
                f"PostgreSQL runs with {name} = {bad} and may lose acknowledged mail in a crash; "
                f"set it to on, or queue.allow_unsafe: true if you accept that"
            )
    connection.rollback()


def _storable(text: str) -> str:
    """Return text as PostgreSQL takes it: no NUL, no half of a pair."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


class _StorableStr(StrDumper):
    def dump(self, obj: str) -> Buffer | None:
        return super().dump(_storable(obj))


class _StorableStrUnknown(StrDumperUnknown):
    def dump(self, obj: str) -> Buffer | None:
        return super().dump(_storable(obj))


class PostgresStore(SqlStore):
    """`protocol.Store` in a PostgreSQL database."""

    def __init__(
        self,
        place: Place | str,
        *,
        keep_content: bool,
    ) -> None:
        super().__init__(keep_content=keep_content)
        self._place = Place.of(place)
        self._engine = create_postgres_engine(self._place)

    @property
    def _clock(self) -> ColumnElement[Any]:
        return cast(extract("epoch", func.clock_timestamp()) * 1000, BigInteger)

    def _now_us(self, connection: Connection) -> int:
        micros = cast(extract("epoch", func.clock_timestamp()) * 1_000_000, BigInteger)
        return int(connection.execute(select(micros)).scalar_one())

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._connection() as connection, connection.begin():
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield connection

    @contextmanager
    def _writing(self, kind: Write = Write.SYNCED) -> Iterator[Connection]:
        with self._connection() as connection, connection.begin():
            if kind is Write.UNSYNCED:
                connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
            yield connection

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        connection = self._engine.connect()
        try:
            yield connection
        except BaseException as error:
            if _is_lost(error):
                # the others lead to the same server: none of them is used again
                connection.invalidate()
                self._engine.dispose()
            raise
        finally:
            connection.close()

    def _translate(self, error: Exception) -> Exception:
        cause = error.orig if isinstance(error, DBAPIError) else error
        text = self._place.explain(" ".join(str(cause).split()))
        match cause:
            case errors.UniqueViolation() if "message_drop_id" in str(cause):
                return AlreadyAccepted("a message with this drop id was stored before")
            case psycopg.IntegrityError() | psycopg.DataError():
                return Unstorable(text)
            case errors.DiskFull():
                return StoreFull(text)
            case psycopg.Error() | SQLAlchemyError():
                return StoreUnavailable(text)
        return error

    # --- writes that outlive the server's restart ------------------------------------------

    def accept_batch(self, messages: Sequence[AcceptedMessage]) -> None:
        def is_stored() -> bool:
            # one transaction: the first is there if all of them are
            with self._read() as connection:
                found = select(message.c.queue_id).where(message.c.queue_id == messages[0].queue_id)
                return connection.execute(found).scalar() is not None

        super_accept = super().accept_batch
        self._through_restarts(lambda: super_accept(messages), is_done=is_stored)

    def add_chunks(self, queue_id: str, first_no: int, bodies: Sequence[bytes]) -> None:
        def is_stored() -> bool:
            return self.read_chunk(queue_id, first_no) is not None

        super_add = super().add_chunks
        self._through_restarts(lambda: super_add(queue_id, first_no, bodies), is_done=is_stored)

    def _through_restarts(self, write: Callable[[], None], *, is_done: Callable[[], bool]) -> None:
        """Write once; after a lost connection look up whether it happened, and write again."""
        give_up_s = time.monotonic() + RECONNECT_S
        tries = 0
        is_unknown = False
        while True:
            try:
                if not (is_unknown and is_done()):
                    write()
                return
            except StoreUnavailable as error:
                is_unknown = is_unknown or _is_lost(error.__cause__)
                if not is_unknown or time.monotonic() >= give_up_s:
                    raise
            time.sleep(_RECONNECT_LADDER_S[min(tries, len(_RECONNECT_LADDER_S) - 1)])
            tries += 1

    def close(self) -> None:
        self._engine.dispose()

    def checkpoint(self) -> bool:
        return False  # the server's own business

    def shrink(self) -> None:
        """Nothing to do: autovacuum gives space back."""


def _is_lost(error: BaseException | None) -> bool:
    """True when the connection is gone, whatever became of what was last sent on it."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    lost = (
        errors.AdminShutdown,
        errors.CrashShutdown,
        errors.CannotConnectNow,
        errors.IdleInTransactionSessionTimeout,
        psycopg.InterfaceError,
    )
    if isinstance(cause, lost):
        return True
    # without a state of SQL it comes from the connection, not from the server
    return isinstance(cause, psycopg.OperationalError) and cause.sqlstate is None
