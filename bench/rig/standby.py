"""A primary and its standby, which may be promoted in its place."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

from bench.rig.fleet import wait_until
from bench.rig.long_line import LongLine
from bench.rig.postgres import PostgresServer, rows_of

EMPTY = "empty"
"""A database of each pair with an empty queue, to be copied."""
_PATIENCE_S = 10.0
_STATES = "SELECT sync_state FROM pg_stat_replication"
# the default lets commits wait 5 s for a standby whose primary was restarted
_SETTINGS = {"wal_retrieve_retry_interval": "200ms"}


class Standby(PostgresServer):
    """A copy of a running server; entered, it follows that one until it is promoted.

    `port` is where it finds the primary, which may be a line between them.
    """

    def __init__(self, primary: PostgresServer, *, port: int, **settings: str) -> None:
        self._source = primary.url.replace(f":{primary.port}/", f":{port}/")
        super().__init__(None, **settings)

    def _fill(self, data: str) -> None:
        words = ("-D", data, "-R", "-c", "fast", "--no-sync", "-d", self._source)
        self._run("pg_basebackup", *words, user=self._user)

    def _settle(self) -> None:
        """It has what its primary has."""

    def promote(self) -> None:
        """Make it a primary; it takes writes on return."""
        self.execute("SELECT pg_promote()")


class Pair:
    """A primary and its standby with databases that are copies of an empty queue.

    Entered, the standby follows; with `is_synchronous` each commit waits for it. `link` is the
    line from the standby to its primary.
    """

    def __init__(self, *, is_synchronous: bool = True) -> None:
        self._is_synchronous = is_synchronous
        self._running = ExitStack()
        self._names = (f"run{number}" for number in itertools.count())
        self.primary: PostgresServer
        self.standby: Standby
        self.link: LongLine

    def url(self, database: str, *, ports: tuple[int, int] | None = None) -> str:
        """Return the URL of a database on whichever of both takes writes; `ports`: where to ask."""
        first, second = ports or (self.primary.port, self.standby.port)
        where = f"host=127.0.0.1,127.0.0.1&port={first},{second}&target_session_attrs=read-write"
        return f"postgresql://relaygw@/{database}?{where}"

    def __enter__(self) -> Self:
        try:
            self.primary = self._running.enter_context(PostgresServer(None, **_SETTINGS))
            self.primary.execute(f"CREATE DATABASE {EMPTY} TEMPLATE postgres")
            self._follow()
        except BaseException:
            self._running.close()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self._running.close()

    def _follow(self) -> None:
        """Give the primary a standby."""
        line = LongLine(connect_port=self.primary.port, round_trip_ms=0)
        self.link = self._running.enter_context(line)
        standby = Standby(self.primary, port=self.link.port, **_SETTINGS)
        self.standby = self._running.enter_context(standby)
        names = "*" if self._is_synchronous else ""
        self.primary.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        self.primary.execute("SELECT pg_reload_conf()")
        wait_until(self.is_followed, "a standby that follows")

    def is_followed(self) -> bool:
        """True while the primary has its standby, and waits for it if it shall."""
        wanted = "sync" if self._is_synchronous else "async"
        return rows_of(self.primary.url, _STATES, patience_s=_PATIENCE_S) == [[wanted]]

    def is_caught_up(self) -> bool:
        """True when all that the primary had written when asked is on the standby."""
        asked = "SELECT pg_current_wal_flush_lsn()"
        ((written,),) = rows_of(self.primary.url, asked, patience_s=_PATIENCE_S)
        query = f"SELECT pg_last_wal_receive_lsn() >= '{written}'"
        return rows_of(self.standby.url, query, patience_s=_PATIENCE_S) == [["t"]]

    @contextmanager
    def database(self) -> Iterator[str]:
        """Have a new database with an empty queue for the length of a with block."""
        name = next(self._names)
        self.primary.execute(f"CREATE DATABASE {name} TEMPLATE {EMPTY}")
        try:
            yield name
        finally:
            with contextlib.suppress(subprocess.SubprocessError):  # whoever failed tells more
                drop = f"DROP DATABASE {name} WITH (FORCE)"
                rows_of(self.url("postgres"), drop, patience_s=_PATIENCE_S)

    def renew(self) -> None:
        """Take the promoted standby as the primary, and give it a standby of its own."""
        self.primary = self.standby
        self._follow()
