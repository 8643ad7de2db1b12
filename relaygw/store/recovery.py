"""Putting what is left of a damaged SQLite queue into a new one, which takes its place.

Nothing is overwritten: see `exchange`.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Table

from relaygw.errors import QueueDamaged, SchemaMismatch
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.state import DeliveryState
from relaygw.store import exchange, instances, log_check, migrate
from relaygw.store.all_tables import whole_metadata
from relaygw.store.held_causes import hold_columns
from relaygw.store.queue_lock import is_alone, open_users, share
from relaygw.store.queue_tables import chunk, delivery, message, recipient
from relaygw.store.salvage import DamagedQueue, Row, Salvaged
from relaygw.store.schema import PARTS, SCHEMA_REVISION, missing_parts

_MESSAGES_A_STEP = 200
_TEMPORARY = frozenset({"instance", "permit", "duty"})  # of processes that are gone
_MADE_AGAIN = frozenset({"captured_index", "captured_text", "captured_facts"})
_MESSAGE_TABLES = frozenset({"message", "delivery", "recipient", "chunk"})
_RECOVERED = HoldCause(HoldCode.RECOVERED)
_SENDABLE = frozenset({DeliveryState.INCOMING, DeliveryState.ACTIVE, DeliveryState.DEFERRED})


@dataclass(slots=True)
class Recovered:
    """What a recovery came to; `damaged` has queue ids with what is missing."""

    recovered: int = 0
    held: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    is_log_lost: bool = False
    log_aside: Path | None = None
    """Where a log is now that lay there and is not known to be this database's."""
    is_log_read: bool = False
    """Whether that log could be read: what is whole with it and without it was recovered."""
    aside: Path | None = None
    """Where the old database is now; None when nothing was wrong and nothing was done."""
    exported: Path | None = None  # the directory with what is left of damaged mail


def examine(url: str) -> list[str]:
    """Return the damages of a queue, a line for each; changes nothing, a gateway may run."""
    path = log_check.database_path(url)
    users = open_users(path)
    try:
        has_others = not is_alone(users)
        if has_others:
            share(users, path)
        try:
            finding = log_check.check_log(path, is_alone=not has_others)
        except QueueDamaged as error:
            return [str(error)]
        if finding.state is not log_check.LogState.WHOLE:
            return [finding.problem]
        return list(_page_problems(path, as_it_lies=False))
    finally:
        os.close(users)


def recover(url: str, *, is_released: bool, now_ms: int, tell: Callable[[int], None]) -> Recovered:
    """Write a new queue with what can be read of a damaged one, and put it in its place.

    Whole messages come back as they were. What may have been sent since is held, unless
    `is_released`: everything unfinished when the log was lost, else what was being sent. The rest
    is written into a directory of files. `tell` gets the number of messages done. Raises
    StoreUnavailable while a gateway runs, QueueDamaged when nothing can be read, SchemaMismatch for
    another version.
    """
    path = log_check.database_path(url)
    with exchange.sole_user(path):
        exchange.undo_cut(path)
        finding = log_check.check_log(path, is_alone=True)
        if (
            finding.state is log_check.LogState.WHOLE
            and not any(_page_problems(path, as_it_lies=False))
            and not _missing_parts(path)
        ):
            return Recovered()
        return _Recovery(path, finding, is_released=is_released, now_ms=now_ms).run(tell)


def _uses_log(finding: log_check.LogFinding) -> bool:
    return finding.state in (log_check.LogState.WHOLE, log_check.LogState.SHORT)


def _page_problems(path: Path, *, as_it_lies: bool) -> Iterator[str]:
    """Yield what SQLite finds wrong with the pages of a database."""
    try:
        with contextlib.closing(log_check.read_only(path, as_it_lies=as_it_lies)) as connection:
            yield from exchange.page_problems(path, connection)
    except log_check.DriverError as error:
        yield f"{path}: {error}"


def _missing_parts(path: Path) -> list[str]:
    with contextlib.closing(log_check.read_only(path)) as connection:
        return missing_parts(connection.execute(PARTS["sqlite"]))


def _is_sound_with_log(path: Path) -> bool:
    """True when a log that may be of another moment makes a whole queue with the database."""
    if log_check.salts_of(log_check.log_of(path)) is None:
        return False
    try:
        with contextlib.closing(log_check.read_only(path)) as connection:
            # its first page says so where it is of another database
            is_of_it = log_check.stamps_of(connection)[0] == log_check.mark_of(path)
    except log_check.DriverError:
        return False
    return is_of_it and not any(_page_problems(path, as_it_lies=False))


class _Recovery:
    """One run, of which nobody else has the database open."""

    def __init__(
        self, path: Path, finding: log_check.LogFinding, *, is_released: bool, now_ms: int
    ) -> None:
        self._path = path
        self._finding = finding
        self._is_released = is_released
        self._now_ms = now_ms
        self._new = path.with_name(path.name + ".recovering")
        self._aside = exchange.aside_name(path, exchange.DAMAGED, now_ms)
        self._exported = exchange.aside_name(path, "parts", now_ms)
        is_lost = finding.state in (log_check.LogState.LOST, log_check.LogState.SHORT)
        self._done = Recovered(is_log_lost=is_lost, aside=self._aside)
        self._instances = instances.lifeline_directory(path.parent)
        self._kept: set[str] = set()
        self._seen: set[str] = set()
        self._has_all_envelopes = False

    def run(self, tell: Callable[[int], None]) -> Recovered:
        with exchange.making(self._path, self._new):
            migrate.upgrade(f"sqlite:///{self._new}")
            try:
                for as_it_lies in self._readings():
                    self._copy_messages(tell, as_it_lies=as_it_lies)
            except log_check.DriverError as error:
                raise QueueDamaged(
                    f"{self._path}: nothing of it can be read ({error}); restore a backup"
                ) from error
            exchange.take_mode(self._path, self._new)
            if log_check.log_of(self._path).exists() and not _uses_log(self._finding):
                self._done.log_aside = log_check.log_of(self._aside)
            exchange.publish(self._path, self._new, self._aside)
        return self._done

    def _readings(self) -> list[bool]:
        """Return how the database is read: as it lies, else with its log, or both in doubt."""
        if _uses_log(self._finding):
            return [False]
        if self._finding.state is log_check.LogState.LOST:
            self._done.is_log_read = _is_sound_with_log(self._path)
        return [False, True] if self._done.is_log_read else [True]

    def _copy_messages(self, tell: Callable[[int], None], *, as_it_lies: bool) -> None:
        with (
            contextlib.closing(log_check.read_only(self._path, as_it_lies=as_it_lies)) as source,
            contextlib.closing(log_check.driver.connect(self._new, isolation_level=None)) as target,
        ):
            _check_revision(source)
            queue = DamagedQueue(source)
            queue_ids = [new_id for new_id in queue.queue_ids() if new_id not in self._seen]
            self._seen.update(queue_ids)
            self._has_all_envelopes = queue.has_all_envelopes and not self._done.is_log_lost
            target.execute("PRAGMA synchronous = FULL")
            target.execute("BEGIN")
            for number, queue_id in enumerate(queue_ids, 1):
                self._take(target, queue.read(queue_id))
                if number % _MESSAGES_A_STEP == 0:
                    target.execute("COMMIT")
                    target.execute("BEGIN")
                    tell(number)
            for table in whole_metadata().sorted_tables:
                if table.name not in _MESSAGE_TABLES | _TEMPORARY | _MADE_AGAIN:
                    self._copy_table(target, queue, table)
            target.execute("COMMIT")
            target.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _copy_table(self, target: Any, queue: DamagedQueue, table: Table) -> None:
        names_mail = "queue_id" in table.c and not table.c.queue_id.nullable
        for row in queue.rows(table):
            if not names_mail or row["queue_id"] in self._kept:
                _insert(target, table, row, or_ignore=True)

    def _take(self, target: Any, left: Salvaged) -> None:
        row = left.message
        if row is not None and row["finished_at_ms"] is not None and row["captured_at_ms"] is None:
            # its content is of no further use
            if left.missing and all("content" in piece for piece in left.missing):
                left.missing, left.content = [], []
            row["chunk_count"] = len(left.content)
        if row is None or left.missing or not self._insert_message(target, left, row):
            self._set_aside(left)
            return
        self._done.recovered += 1
        self._kept.add(left.queue_id)

    def _insert_message(self, target: Any, left: Salvaged, row: Row) -> bool:
        """Insert a message that is whole; False when it is not after all."""
        row |= {"indexed_at_ms": None}
        parts = [self._as_it_may_go(part) for part in left.deliveries]
        bodies = enumerate(left.content)
        target.execute("SAVEPOINT message")
        try:
            _insert(target, message, row)
            for part in parts:
                _insert(target, delivery, part)
            for person in left.recipients:
                _insert(target, recipient, person)
            for number, body in bodies:
                piece = {"queue_id": left.queue_id, "chunk_no": number, "body": body}
                _insert(target, chunk, piece)
        except (
            log_check.driver.IntegrityError,
            log_check.driver.DataError,
            log_check.driver.ProgrammingError,
        ) as error:
            target.execute("ROLLBACK TO message")
            left.missing.append(f"values that make sense ({error})")
            return False
        finally:
            target.execute("RELEASE message")
        self._done.held += any(part["reason"] == _RECOVERED.sentence for part in parts)
        return True

    def _as_it_may_go(self, part: Row) -> Row:
        if part["state"] not in _SENDABLE:
            return part
        lease, state = part["lease"], part["state"]
        is_touched = self._done.is_log_lost or (lease is not None and self._was_sent(part))
        if state == DeliveryState.ACTIVE.value:
            untried = part["attempts"] == 0
            state = DeliveryState.INCOMING.value if untried else DeliveryState.DEFERRED.value
        changes = {"state": state, "lease": None}
        if is_touched and not self._is_released:
            held = {"state": DeliveryState.HELD.value, "held_at_ms": self._now_ms}
            changes |= {**held, **hold_columns(_RECOVERED)}
        return {**part, **changes, "changed_at_ms": self._now_ms}

    def _was_sent(self, part: Row) -> bool:
        """Return whether a leased delivery may have been with its provider."""
        if not (self._instances / str(part["lease"])).exists():
            return True
        begun = instances.begun_by(self._instances, part["lease"])
        return (part["queue_id"], part["delivery_no"]) in {attempt[:2] for attempt in begun}

    def _set_aside(self, left: Salvaged) -> None:
        has_envelope = bool(left.message or left.deliveries or left.recipients)
        if not has_envelope and self._has_all_envelopes:
            return  # its client left before the end
        if not (has_envelope or left.content):
            self._done.lost.append(left.queue_id)
            return
        self._done.damaged[left.queue_id] = ", ".join(left.missing)
        self._done.exported = self._exported
        self._exported.mkdir(mode=0o700, exist_ok=True)
        name = self._exported / "".join(c for c in left.queue_id if c.isalnum())
        names = ("missing", "message", "deliveries", "recipients")
        facts = {fact: getattr(left, fact) for fact in names}
        text = json.dumps(facts, indent=1, default=repr)
        _write(name.with_suffix(".json"), text.encode())
        if left.content:
            _write(name.with_suffix(".eml"), b"".join(left.content))


def _check_revision(source: Any) -> None:
    try:
        found = source.execute("SELECT version_num FROM alembic_version").fetchall()
    except log_check.DriverError:
        return  # as good as any other that can be read
    if found and found[0][0] != SCHEMA_REVISION:
        raise SchemaMismatch(
            f"the queue has schema {found[0][0]}, this version recovers {SCHEMA_REVISION}; "
            "recover it with the version that wrote it"
        )


def _insert(target: Any, table: Table, row: Row, *, or_ignore: bool = False) -> None:
    columns = [column.name for column in table.columns if column.name in row]
    marks = ", ".join("?" * len(columns))
    target.execute(
        f"INSERT {'OR IGNORE ' if or_ignore else ''}INTO {table.name} ({', '.join(columns)}) "
        f"VALUES ({marks})",
        [row[name] for name in columns],
    )


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
