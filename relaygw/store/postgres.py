"""The store on PostgreSQL: many instances share one queue.

`fsync` and `synchronous_commit` are asserted on every connection. When the server goes away a write
is tried again; whether a lost commit happened is looked up first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from relaygw.errors import (
    AlreadyAccepted,
    PackageMissing,
    StoreFull,
    StoreUnavailable,
    UnfitServer,
    Unstorable,
)

try:
    import psycopg
    from psycopg import errors
    from psycopg.abc import PQGen
    from psycopg.adapt import Buffer
    from psycopg.types.string import StrDumper, StrDumperUnknown
except ImportError as error:  # it lacks, or libpq does
    raise PackageMissing("psycopg[binary]") from error

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from relaygw.mail.clock import awake_s, clock_ms
from relaygw.store.database import (
    NO_SPACE_REMEDY,
    RAW_CURSOR,
    Database,
    Place,
    Translated,
    Write,
    close_connections,
)
from relaygw.store.word_index import WordIndex

ANSWER_S = 20.0  # how long a server that is there may take for one answer
RECONNECT_S = 10.0  # how long a write waits for a server that went away before it fails
REFUSING_S = 1.0  # after that others fail at once: what waited behind it has waited as long
_KEPT_CONNECTIONS = 5  # of those that are not in use
_RECONNECT_LADDER_S = (0.05, 0.1, 0.2, 0.5, 1.0)
IDLE_IN_TRANSACTION_S = 15.0
"""How long the server waits for a client in a transaction, which may be cut off, or stopped.

Less than a lease lasts: the locks of one that is dead must not keep others from burying it.
"""
_CONNECT_ARGUMENTS = {
    "application_name": "relaygw",
    "client_encoding": "UTF8",  # whatever the role has; a pooler keeps it for each client
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "prepare_threshold": None,  # a pooler may hand the next transaction to another session
}
_CONNECTED_AT_S = "connected_at_s"  # key in a connection's `info`: when it was made
_NOW_US = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)"
_LOST_STATES = ("08", "57P", "25006", "25P03", "25P04")
"""States of SQL, or how they begin, after which a connection is of no more use.

Cut; ended or refused by the server; read only, as a session stays that began while the server took
no writes, or leads to a standby; in a transaction for too long.
"""
# a pooler makes up the number that it names to its client
_END_SESSION = """
    SELECT pg_terminate_backend(pg_backend_pid())
    WHERE current_setting('transaction_read_only')::bool AND pg_backend_pid() <> %s
"""
_SAME_MS = 1000
_SHARP_MS = 500  # an answer that took longer says too little
_UNSAFE = {"fsync": "off", "synchronous_commit": "off"}

T = TypeVar("T")


class AnsweringConnection(psycopg.Connection[Any]):
    """Closes itself when an answer takes longer than `answer_s`.

    The system's limits end a connection whose other side is gone, not one to a server that is
    frozen, behind a pooler that hangs, or waiting for its standby. Nor does `statement_timeout`:
    what is frozen keeps no time, and a commit that waits for a standby would be called done.
    """

    answer_s: float | None = None  # None: waits as long as it takes
    _is_given_up = False

    def wait(self, gen: PQGen[T], *args: Any, **more: Any) -> T:
        """Wait as psycopg does; raises OperationalError without a SQLSTATE when it is too long.

        What was asked may still happen in the server.
        """
        if self.answer_s is None:
            return super().wait(gen, *args, **more)
        try:
            return super().wait(_within(gen, self.answer_s), *args, **more)
        except _NoAnswer:
            self._is_given_up = True
            self.pgconn.finish()
            raise psycopg.OperationalError(
                f"the server did not answer within {self.answer_s:g} s"
            ) from None

    def rollback(self) -> None:
        """Undo the transaction; of no effect, and no second error, on one that was given up."""
        if not self._is_given_up:
            super().rollback()


class _NoAnswer(Exception):
    pass


def _within(gen: PQGen[T], limit_s: float) -> PQGen[T]:
    """Pass a generator of psycopg on, which is told several times a second that nothing came."""
    until_s = time.monotonic() + limit_s
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > until_s:
                raise _NoAnswer
            wanted = gen.send(ready)
    except StopIteration as end:
        result: T = end.value
        return result


def create_postgres_engine(
    place: Place, *, answer_s: float | None = None, idle_s: float = IDLE_IN_TRANSACTION_S
) -> Engine:
    """Return an engine that reads the password, and limits answers, for each connection.

    Connecting raises StoreUnavailable when the server may lose data, unless the place allows that.
    """
    kept = min(_KEPT_CONNECTIONS, place.connections)
    engine = create_engine(
        make_url(place.url).set(drivername="postgresql+psycopg"),
        pool_size=kept,
        max_overflow=place.connections - kept,
        pool_timeout=ANSWER_S,
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
        timeout_ms = int(idle_s * 1000)
        connection.execute(f"SET idle_in_transaction_session_timeout = {timeout_ms}")
        connection.commit()
        _check_fitness(connection, place)

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "connect", configure)
    return engine


def _check_fitness(connection: psycopg.Connection[Any], place: Place) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise UnfitServer(
            f"the database has the encoding {encoding}, which cannot hold all mail; create one "
            "with CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0, and name it in queue.url"
        )
    for name, bad in _UNSAFE.items() if not place.allow_unsafe else ():
        row = connection.execute(f"SHOW {name}").fetchone()
        if row is not None and row[0] == bad:
            raise UnfitServer(
                f"PostgreSQL runs with {name} = {bad} and may lose acknowledged mail in a crash; "
                "set it to on, or set queue.allow_unsafe: true if you accept that"
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


class PostgresDatabase(Database):
    """A PostgreSQL database that instances on many machines share; its clock counts.

    It is looked at with each heartbeat. Less than a second's difference comes from measuring.
    """

    is_shared = True

    def __init__(
        self,
        place: Place | str,
        *,
        here_ms: Callable[[], int] = clock_ms,
        answer_s: float = ANSWER_S,
        idle_s: float = IDLE_IN_TRANSACTION_S,
        reconnect_s: float = RECONNECT_S,
        refusing_s: float = REFUSING_S,
    ) -> None:
        self._place = Place.of(place)
        self._here_ms = here_ms  # this machine's clock
        self._reconnect_s, self._refusing_s = reconnect_s, refusing_s
        open_engine = partial(create_postgres_engine, self._place, idle_s=idle_s)
        self._engine = open_engine(answer_s=answer_s)
        self._worked_until_s = float("-inf")  # when the last call began whose connection was lost
        self._refusing_until_s = float("-inf")
        self.word_index = WordIndex(open_engine)
        # how far the database was ahead, and this machine's clock beyond its time awake, then
        self._measured: tuple[int, int] | None = None
        event.listen(self._engine, "checkout", self._check_age)

    # --- the clock -----------------------------------------------------------------------

    def _now_us(self, connection: Connection) -> int:
        return int(connection.exec_driver_sql(_NOW_US).scalar_one())

    def _ahead_ms(self) -> int:
        if self._measured is None:
            self._measure()
        return self._known_ahead_ms()

    def _known_ahead_ms(self) -> int:
        """Return the difference as it was measured; a clock that was set here since is allowed for.

        Kept if it can be: what is written again, because an answer was lost, is the same.
        """
        if self._measured is None:
            return 0
        ahead_ms, beyond_ms = self._measured
        set_by_ms = self._here_ms() - _awake_ms() - beyond_ms
        return ahead_ms - set_by_ms if abs(set_by_ms) > _SAME_MS else ahead_ms

    def _measure(self) -> None:
        with self._reading() as connection:
            asked_ms = self._here_ms()
            there_ms = self._now_us(connection) // 1000
            answered_ms = self._here_ms()
        before_ms = self._known_ahead_ms()
        ahead_ms = there_ms - (asked_ms + answered_ms) // 2
        is_new = abs(ahead_ms - before_ms) > _SAME_MS
        is_sharp = answered_ms - asked_ms <= _SHARP_MS or self._measured is None
        self._measured = (ahead_ms if is_new and is_sharp else before_ms, answered_ms - _awake_ms())

    def clock_ms(self) -> int:
        """Return the database's time as it was when it was last measured."""
        with Translated(self._translate):
            return self._here_ms() + self._ahead_ms()

    def measure_clock(self) -> None:
        """Look at the database's clock; errors are left for the next call."""
        with suppress(StoreUnavailable), Translated(self._translate):
            self._measure()

    # --- transactions --------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._connection() as connection, connection.begin():
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield connection

    @contextmanager
    def _writing(self, kind: Write) -> Iterator[Connection]:
        with self._connection() as connection, connection.begin():
            if kind is Write.UNSYNCED:
                connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
            yield connection

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        began_s = time.monotonic()
        with self._engine.connect() as connection:
            try:
                yield connection
            except BaseException as error:
                if _is_lost(error):
                    self._worked_until_s = max(self._worked_until_s, began_s)
                    _end_session_of_pooler(connection)
                    connection.invalidate()
                raise

    def _check_age(self, _raw: Any, record: ConnectionPoolEntry, _pooled: Any) -> None:
        """Renew a connection older than one that was lost: it may lead to what was the primary."""
        if record.info[_CONNECTED_AT_S] <= self._worked_until_s:
            raise DisconnectionError("the server was unreachable")

    def _translate(self, error: Exception) -> Exception:
        cause = error.orig if isinstance(error, DBAPIError) else error
        said = " ".join(_said(cause).split())
        text = self._place.explain(said)
        match cause:
            case errors.UniqueViolation() if "message_drop_id" in str(cause):
                return AlreadyAccepted("a message with this drop id was stored before")
            case psycopg.IntegrityError() | psycopg.DataError():
                return Unstorable(text)
            case errors.DiskFull():
                return StoreFull(f"{self._place}: {said}; {NO_SPACE_REMEDY}")
            case psycopg.Error() | SQLAlchemyError():
                return StoreUnavailable(text)
        return error

    def outlive_restarts(self, write: Callable[[], None], *, is_done: Callable[[], bool]) -> None:
        """Write once; after a lost connection look up whether it happened, and write again."""
        if time.monotonic() < self._refusing_until_s:
            raise StoreUnavailable(self._place.explain("the server is unreachable"))
        give_up_s = time.monotonic() + self._reconnect_s
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
                    self._refusing_until_s = time.monotonic() + self._refusing_s
                    raise
            time.sleep(_RECONNECT_LADDER_S[min(tries, len(_RECONNECT_LADDER_S) - 1)])
            tries += 1

    def shrink(self) -> None:
        """See Janitor.shrink: now and then, build the index of words anew, in a thread of its own.

        What went wrong is raised by the next call.
        """
        with Translated(self._translate):
            self.word_index.look_if_due()

    def close(self) -> None:
        """Close all connections; one that a thread still has in use, when it is given back."""
        close_connections(self._engine)


def _said(cause: object) -> str:
    """Return the server's message, without the row that it is about: that is mail."""
    primary = cause.diag.message_primary if isinstance(cause, psycopg.Error) else None
    return primary or str(cause)


def _awake_ms() -> int:
    return int(awake_s() * 1000)


def _end_session_of_pooler(connection: Connection) -> None:
    """Have the server end a session that writes nothing, where a pooler would lend it again."""
    if connection.invalidated:
        return
    driver: Any = connection.connection.dbapi_connection
    with suppress(psycopg.Error):  # it is gone already
        driver.rollback()
        driver.execute(_END_SESSION, [driver.info.backend_pid])


def _is_lost(error: BaseException | None) -> bool:
    """True when the connection is of no more use, whatever became of what was last sent on it."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(cause, psycopg.OperationalError | psycopg.InternalError):
        return isinstance(cause, psycopg.InterfaceError)
    # without a state of SQL it comes from the connection, not from the server
    return cause.sqlstate is None or cause.sqlstate.startswith(_LOST_STATES)
