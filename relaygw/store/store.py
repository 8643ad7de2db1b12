"""The store: repositories that each know one subject, and what takes several of them.

`tests/contract` holds what they must do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from relaygw.errors import QueueDamaged
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.mail_class import MailClass
from relaygw.mail.state import DeliveryState
from relaygw.store.audit import Audit, AuditEntry
from relaygw.store.database import Database, Place
from relaygw.store.doubts import Doubts
from relaygw.store.feedback import Feedback
from relaygw.store.find import Find
from relaygw.store.guard import GuardAction, GuardEntry, Guards
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
from relaygw.store.sources import Sources
from relaygw.store.sqlite import SqliteDatabase
from relaygw.store.suppression_list import Suppressions
from relaygw.store.visitors import Sessions, Visitors
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


_WAITING = frozenset({DeliveryState.INCOMING, DeliveryState.DEFERRED})
_BATCH = 500  # messages


# --- mail that entries of the guard hold -----------------------------------------------------


def release_left(store: Store) -> None:
    """Release mail whose entry is gone, and that of a class that is allowed.

    A front holds on for two seconds after a release.
    """
    causes = [one for one in store.holds.held_causes() if one.code is HoldCode.GUARD]
    if not causes:
        return
    # read behind it: what is held for an entry has one by now
    entries = store.guard.guard_entries()
    held = {one.target for one in entries if one.action is GuardAction.HOLD}
    for cause in causes:
        if cause.key.partition(" ")[0] not in held:
            while store.holds.release_held(cause, limit=_BATCH):
                pass
    of_held = [one for one in causes if one.key.partition(" ")[0] in held]
    for ids in _allowed_of_held(store, entries, held):
        keys = [
            (one.queue_id, part.delivery_no)
            for one in store.queue.entries(ids)
            for part in one.deliveries
        ]
        for cause in of_held:
            store.holds.let_go(keys, cause)


def _allowed_of_held(
    store: Store, entries: Sequence[GuardEntry], held: set[str]
) -> Iterator[list[str]]:
    """Yield messages of classes that are allowed, held for their source."""
    allowed = [
        one.target
        for one in entries
        if one.action is GuardAction.ALLOW and one.target != one.source_id and one.source_id in held
    ]
    for one in store.guard.classes_of(allowed) if allowed else ():
        yield from held_of_class(store, one.mail_class)


def held_of_class(store: Store, one: MailClass) -> Iterator[list[str]]:
    """Yield messages of a class that are held for its source."""
    after, goes_on = "", True
    while goes_on:
        found, after = store.guard.held_of(one, after=after)
        goes_on = bool(after)
        if found:
            yield found


def hold_waiting(store: Store, *, actor: str, now_ms: int, target: str = "") -> int:
    """Hold the waiting mail that the entries cover, or that of one target; return how much.

    Audited, as an operator's holds are. What is being sent stays as it is, and so does what
    somebody released, unless it is asked for by its target.
    """
    scopes = [one for one in store.guard.held_scopes() if target in ("", one.target)]
    ids = {one.source_id for one in scopes}
    classes = store.guard.classes_of(ids) if ids else []
    sources = {one.mail_class.source_id: one.mail_class.source for one in classes}
    held = 0
    for scope in scopes:
        after, goes_on = "", scope.source_id in sources
        while goes_on:
            found, after = store.guard.waiting_of(
                scope, sources[scope.source_id], is_any=bool(target), after=after
            )
            goes_on = bool(after)
            if found:
                held += store.queue.change_state(
                    found,
                    from_states=_WAITING,
                    to=DeliveryState.HELD,
                    hold=HoldCause(HoldCode.GUARD, f"{scope.target} {scope.reason}"),
                    entry=AuditEntry(
                        at_ms=now_ms,
                        actor=actor,
                        action="queue.hold",
                        target=" ".join(found),
                        affected=len(found),
                        detail=f"guard={scope.target!r}",
                    ),
                )
    return held
