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
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.elements import ColumnElement

from relaygw.errors import AlreadyAccepted, StoreFull, StoreUnavailable, Unstorable
from relaygw.mail.envelope import AcceptedMessage
from relaygw.store.answering import AnsweringConnection
from relaygw.store.batch import RAW_CURSOR
from relaygw.store.database_clock import DatabaseClockStore
from relaygw.store.place import Place
from relaygw.store.protocol import Instance
from relaygw.store.steadiness import Steadiness
from relaygw.store.tables import message
from relaygw.store.transactions import Write

ANSWER_S = 20.0
"""How long a server that is there may take for one answer."""
RECONNECT_S = 10.0
"""How long a write waits for a server that went away before it fails."""
REFUSING_S = 1.0
"""How long after that others fail at once: what waited behind it has waited as long."""
_RECONNECT_LADDER_S = (0.05, 0.1, 0.2, 0.5, 1.0)
IDLE_IN_TRANSACTION_S = 15.0
"""How long the server waits for a client in a transaction, which may be cut off, or stopped.

Less than a lease lasts: the locks of one that is dead must not keep others from burying it.
"""
_CONNECT_ARGUMENTS = {
    "application_name": "relaygw",
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "prepare_threshold": None,  # a pooler may hand the next transaction to another session
}
_CONNECTED_AT_S = "connected_at_s"
"""Key in a connection's `info`: when it was made."""
_UNSAFE = {"fsync": "off", "synchronous_commit": "off"}

T = TypeVar("T")


def create_postgres_engine(place: Place, *, answer_s: float | None = None) -> Engine:
    """Return an engine; the password is read for each connection.

    `answer_s`: how long an answer may take, see answering. Connecting raises StoreUnavailable
    when the server may lose what it was told to keep, unless the place allows that.
    """
    engine = create_engine(
        make_url(place.url).set(drivername="postgresql+psycopg"),
        pool_size=5,
        max_overflow=20,
        connect_args=_CONNECT_ARGUMENTS,
    )

    def connect(_dialect: Any, _record: Any, _args: Any, parameters: dict[str, Any]) -> Any:
        secret = place.password()
        if secret is not None:
            parameters["password"] = secret
        connection = AnsweringConnection.connect(**parameters)
        connection.answer_s = answer_s
        return connection

    def configure(connection: psycopg.Connection[Any], record: ConnectionPoolEntry) -> None:
        record.info[RAW_CURSOR] = psycopg.RawCursor
        record.info[_CONNECTED_AT_S] = time.monotonic()
        connection.adapters.register_dumper(str, _StorableStr)
        connection.adapters.register_dumper(str, _StorableStrUnknown)
        # a pooler may give it to another session: it is right for all of this user's
        timeout_ms = int(IDLE_IN_TRANSACTION_S * 1000)
        connection.execute(f"SET idle_in_transaction_session_timeout = {timeout_ms}")
        connection.commit()
        if not place.allow_unsafe:
            _check_durability(connection)

    event.listen(engine, "do_connect", connect)
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


class PostgresStore(DatabaseClockStore):
    """`protocol.Store` in a PostgreSQL database."""

    def __init__(
        self,
        place: Place | str,
        *,
        keep_content: bool,
    ) -> None:
        super().__init__(keep_content=keep_content)
        self._place = Place.of(place)
        self._engine = create_postgres_engine(self._place, answer_s=ANSWER_S)
        self._worked_until_s = float("-inf")  # when the last call began whose connection was lost
        self._refusing_until_s = float("-inf")
        self._steadiness = Steadiness()
        event.listen(self._engine, "checkout", self._check_age)

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
        began_s = time.monotonic()
        try:
            with self._engine.connect() as connection:
                try:
                    yield connection
                except BaseException as error:
                    if _is_lost(error):
                        connection.invalidate()
                    raise
        except Exception as error:
            if _is_lost(error):
                self._worked_until_s = max(self._worked_until_s, began_s)
            raise

    def _check_age(self, _raw: Any, record: ConnectionPoolEntry, _pooled: Any) -> None:
        """Have a connection made anew that was there before another one was lost.

        It leads to the same server, or to one that was the primary.
        """
        if record.info[_CONNECTED_AT_S] <= self._worked_until_s:
            raise DisconnectionError("the server was out of reach")

    def _translate(self, error: Exception) -> Exception:
        cause = error.orig if isinstance(error, DBAPIError) else error
        text = self._place.explain(" ".join(_said(cause).split()))
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

    # --- who is dead, and who was only cut off -----------------------------------------------

    def register(self, entry: Instance) -> None:
        super().register(entry)
        self._steadiness.note_beat(_awake_s())

    def heartbeat(self, incarnation: str, *, state: str = "running") -> bool:
        is_known = super().heartbeat(incarnation, state=state)
        self._steadiness.note_beat(_awake_s())
        return is_known

    def stale_incarnations(self, after_s: float) -> list[str]:
        """See Store.stale_incarnations; none while the others may just not have had the time."""
        stale = super().stale_incarnations(after_s)
        return stale if self._steadiness.has_lasted(after_s, _awake_s()) else []

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
        if time.monotonic() < self._refusing_until_s:
            raise StoreUnavailable(self._place.explain("the server is out of reach"))
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
                if not is_unknown:
                    raise
                if time.monotonic() >= give_up_s:
                    self._refusing_until_s = time.monotonic() + REFUSING_S
                    raise
            time.sleep(_RECONNECT_LADDER_S[min(tries, len(_RECONNECT_LADDER_S) - 1)])
            tries += 1

    def close(self) -> None:
        self._engine.dispose()

    def checkpoint(self) -> bool:
        return False  # the server's own business

    def shrink(self) -> None:
        """Nothing to do: autovacuum gives space back."""


def _said(cause: object) -> str:
    """Return what the server said, without the row that it says it of: that is mail."""
    primary = cause.diag.message_primary if isinstance(cause, psycopg.Error) else None
    return primary or str(cause)


def _awake_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


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
