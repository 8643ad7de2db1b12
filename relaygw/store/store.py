"""The store: repositories that each know one subject, and what takes several of them.

`tests/contract` holds what they must do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from relaygw.errors import QueueDamaged
from relaygw.store.audit import Audit
from relaygw.store.database import Database, Place
from relaygw.store.doubts import Doubts
from relaygw.store.feedback import Feedback
from relaygw.store.find import Find
from relaygw.store.guard import Guards
from relaygw.store.holds import Holds
from relaygw.store.home import Homes
from relaygw.store.instances import Instances
from relaygw.store.intake import Intake
from relaygw.store.janitor import Janitor
from relaygw.store.leases import Leases
from relaygw.store.limits import Limits
from relaygw.store.log_check import missing_database
from relaygw.store.notices import Notices
from relaygw.store.outbox import Outbox
from relaygw.store.queue import Queue
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.repeats import Repeats
from relaygw.store.reports import Reports
from relaygw.store.rhythms import Rhythms
from relaygw.store.rules import NO_RULES, StoreRules
from relaygw.store.sandbox import Sandbox
from relaygw.store.sessions import Sessions
from relaygw.store.sources import Sources
from relaygw.store.sqlite import SqliteDatabase
from relaygw.store.suppression_list import Suppressions
from relaygw.store.visitors import Visitors
from relaygw.store.watch import Digests, Watch

_CHUNKS_A_STEP = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """All repositories over one database."""

    database: Database
    intake: Intake
    leases: Leases
    instances: Instances
    limits: Limits
    holds: Holds
    queue: Queue
    audit: Audit
    sandbox: Sandbox
    find: Find
    reports: Reports
    watch: Watch
    janitor: Janitor
    sessions: Sessions
    feedback: Feedback
    outbox: Outbox
    suppressions: Suppressions
    notices: Notices
    doubts: Doubts
    sources: Sources
    guard: Guards
    rhythms: Rhythms
    homes: Homes
    visitors: Visitors
    digests: Digests
    repeats: Repeats

    def clock_ms(self) -> int:
        """Return the time by the queue's clock, as it was last measured; it costs no call."""
        return self.database.clock_ms()

    def close(self) -> None:
        """Close all connections."""
        self.database.close()


def check_driver(place: Place | str) -> None:
    """Raise PackageMissing where the driver of the place's database cannot be loaded."""
    if Place.of(place).is_postgres:
        # one that is there may lack libpq: only loading it tells
        import relaygw.store.postgres  # noqa: F401


def open_store(
    place: Place | str, *, rules: StoreRules = NO_RULES, first_in_line: bool = False
) -> Store:
    """Open a queue whose schema is there; raises StoreUnavailable, QueueDamaged.

    `first_in_line`: see SqliteDatabase.
    """
    place = Place.of(place)
    if place.is_postgres:
        from relaygw.store.postgres import PostgresDatabase

        return store_on(PostgresDatabase(place), rules)
    database = SqliteDatabase(place.url, first_in_line=first_in_line)
    return store_on(database, rules)


def refuse_lost_database(path: Path) -> None:
    """Raise QueueDamaged where the database of a SQLite queue is gone, and its log is not."""
    if problem := missing_database(path):
        raise QueueDamaged(problem)


def store_on(database: Database, rules: StoreRules = NO_RULES) -> Store:
    """Return the store on an open database."""
    return Store(
        database=database,
        intake=Intake(database, rules),
        leases=Leases(database, rules),
        instances=Instances(database, rules),
        limits=Limits(database),
        holds=Holds(database),
        queue=Queue(database, rules),
        audit=Audit(database),
        sandbox=Sandbox(database, rules),
        find=Find(database),
        reports=Reports(database),
        watch=Watch(database),
        janitor=Janitor(database),
        sessions=Sessions(database),
        feedback=Feedback(database, rules),
        outbox=Outbox(database),
        suppressions=Suppressions(database, rules),
        notices=Notices(database, rules),
        doubts=Doubts(database),
        sources=Sources(database),
        guard=Guards(database),
        rhythms=Rhythms(database),
        homes=Homes(database),
        visitors=Visitors(database),
        digests=Digests(database),
        repeats=Repeats(database),
    )


def read_content(store: Store, entry: QueueEntry) -> Iterator[bytes]:
    """Yield the stored content of a message chunk by chunk; stops early when it is gone."""
    for chunk_no in range(entry.chunk_count):
        body = store.intake.read_chunk(entry.queue_id, chunk_no)
        if body is None:
            return
        yield body


def add_content(store: Store, queue_id: str, chunks: Iterator[bytes]) -> None:
    """Store the content of a large message ahead of it, a few chunks a transaction."""
    done = 0
    while bodies := list(islice(chunks, _CHUNKS_A_STEP)):
        store.intake.add_chunks(queue_id, done, bodies)
        done += len(bodies)
