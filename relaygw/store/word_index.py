"""The index of words on PostgreSQL, built anew where most of it is of mail that is gone.

Autovacuum gives other space back. This index keeps each word that ever was in a mail, an order
number as well: what a vacuum empties of it stays. One process of all is at it: looking and building
are within one lock of the database.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from threading import Thread

from sqlalchemy import Engine

from relaygw.errors import StoreUnavailable

LOOK_EACH_S = 900.0
LEAST_BYTES = 4 << 20  # below that nobody minds what is in it
BLOAT = 2.0  # so many times what it takes fresh, which is about as much as its table
_LOCK = 7_235_102  # any number but those of other locks: who has it looks, and builds
# A transaction of its own has it: a pooler may hand each statement that stands alone to another
# session. It has no snapshot, for which the building would wait, and is idle all the while.
_TAKE_LOCK = f"SELECT pg_try_advisory_xact_lock({_LOCK})"
_STAY_IDLE = "SET LOCAL idle_in_transaction_session_timeout = 0"
# an older version, without the lock, may be at it
_IS_BLOATED = """
    SELECT pg_relation_size(words) >= greatest(%(least_bytes)s, %(bloat)s * pg_table_size(mail))
        AND NOT EXISTS (SELECT 1 FROM pg_stat_progress_create_index WHERE relid = mail)
    FROM (SELECT to_regclass('mail_search_words') AS words, to_regclass('mail_search') AS mail) it
"""
_BYTES = "SELECT coalesce(pg_relation_size(to_regclass('mail_search_words')), 0)"
_BUILD = "REINDEX INDEX CONCURRENTLY mail_search_words"
# what such a building leaves where it is cut short: each insert would go on paying for it
_LEFT = """
    SELECT spare.indexrelid::regclass::text FROM pg_index AS spare
    JOIN pg_class ON pg_class.oid = spare.indexrelid
    WHERE spare.indrelid = to_regclass('mail_search') AND NOT spare.indisvalid
        AND relname ~ '^mail_search_words_cc(new|old)[0-9]*$'
        AND NOT EXISTS (SELECT 1 FROM pg_stat_progress_create_index WHERE relid = spare.indrelid)
"""


class WordIndex:
    """Looks after the index now and then, in a thread of its own."""

    def __init__(
        self,
        open_engine: Callable[[], Engine],
        *,
        look_each_s: float = LOOK_EACH_S,
        least_bytes: int = LEAST_BYTES,
        bloat: float = BLOAT,
    ) -> None:
        self._open_engine = open_engine  # one that waits for its answer as long as it takes
        self._look_each_s, self._least_bytes, self._bloat = look_each_s, least_bytes, bloat
        # those of a fleet begin together, and one look at a time is enough
        self._look_at_s = time.monotonic() + look_each_s * (1 + random.random())
        self._fresh_bytes = 0  # what it took when it was built
        self._trouble: Exception | None = None
        self.thread: Thread | None = None

    def look_if_due(self) -> None:
        """Begin a look where it is time; raises what went wrong with the one before."""
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            raise trouble
        if time.monotonic() < self._look_at_s:
            return
        self._look_at_s = time.monotonic() + self._look_each_s
        if self.thread is not None and self.thread.is_alive():
            raise StoreUnavailable(
                "the index of words (mail_search_words) is still being built, or waits for a "
                "transaction that is open; pg_stat_activity tells of which"
            )
        self.thread = Thread(target=self.look, name="index", daemon=True)
        self.thread.start()

    def look(self) -> None:
        """Build it anew if that is worth it and no other process is at it; mail goes on."""
        engine = self._open_engine()
        try:
            # by READ COMMITTED no statement leaves a snapshot, whatever the server's default
            with engine.connect().execution_options(isolation_level="READ COMMITTED") as locking:
                locking.exec_driver_sql(_STAY_IDLE)
                if locking.exec_driver_sql(_TAKE_LOCK).scalar_one():
                    self._build_if_bloated(engine)
        except Exception as error:  # mail does not depend on it, and another look is near
            self._trouble = error
        finally:
            engine.dispose()

    def _build_if_bloated(self, engine: Engine) -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for (name,) in connection.exec_driver_sql(_LEFT).all():
                connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            least_bytes = max(self._least_bytes, int(self._bloat * self._fresh_bytes))
            limits = {"least_bytes": least_bytes, "bloat": self._bloat}
            if connection.exec_driver_sql(_IS_BLOATED, limits).scalar():
                connection.exec_driver_sql(_BUILD)
                self._fresh_bytes = int(connection.exec_driver_sql(_BYTES).scalar_one())
