"""The processes that use a queue: who lives, who is dead, and what the dead leave behind.

Dead is whose heartbeat stays the same while somebody looks: its age says nothing once a clock was
set. Only who was in touch with the database all along can tell, for after a server was away whoever
comes back first must leave the others time to renew theirs.

On one host a lock file per incarnation tells at once: the kernel drops the lock with the process.
The file also names, in slots, the deliveries that are being sent. It is not synced: what a process
wrote the kernel keeps.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

from sqlalchemy import and_, case, delete, func, select, update

from relaygw.mail.clock import awake_s
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.state import DeliveryState
from relaygw.store import doubts
from relaygw.store.database import Database, Repository, Statement, Transaction, insert_into
from relaygw.store.held_causes import hold_columns
from relaygw.store.outcomes import write_interrupted
from relaygw.store.queue_tables import delivery, instance, permit
from relaygw.store.rules import NO_RULES, StoreRules

MAX_RECLAIMS = 3  # a delivery that was in the hands of this many dying workers is held as poison
MISSED_S = 10.0  # heartbeats so far apart were not answered in time; they are due each five seconds
Begun = tuple[str, int, str]  # what was being sent: queue id, delivery number, provider

_SLOT_BYTES = 128
_EMPTY_SLOT = b" " * (_SLOT_BYTES - 1) + b"\n"

_D = delivery.c
_NOTE_LOST = insert_into(
    "lost_instance", "incarnation name role pid heartbeat_at_ms leases", on_conflict="DO NOTHING"
)
_OWNERLESS = Statement(
    """
    SELECT lease FROM delivery WHERE lease IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM instance WHERE instance.incarnation = delivery.lease
    )
    UNION SELECT incarnation FROM permit WHERE NOT EXISTS (
        SELECT 1 FROM instance WHERE instance.incarnation = permit.incarnation
    )
    """
)


@dataclass(frozen=True, slots=True)
class Instance:
    """One running process of a role; an incarnation is never reused."""

    incarnation: str
    name: str
    role: str
    pid: int
    version: str
    fingerprint: str
    state: str = "running"
    started_at_ms: int = 0
    heartbeat_at_ms: int = 0


# all that an idle role says: as texts they keep SQLAlchemy's compiler out of its memory
_COLUMNS = [field.name for field in fields(Instance)]
_REGISTER = insert_into("instance", " ".join(_COLUMNS))
_RENEW = Statement("UPDATE instance SET heartbeat_at_ms = {?}, state = {?} WHERE incarnation = {?}")
_HEARTBEATS = Statement("SELECT incarnation, heartbeat_at_ms FROM instance")
_REGISTERED = Statement(f"SELECT {', '.join(_COLUMNS)} FROM instance ORDER BY role, started_at_ms")


class Instances(Repository):
    """Registered processes and their heartbeats."""

    def __init__(self, database: Database, rules: StoreRules = NO_RULES) -> None:
        super().__init__(database, rules)
        self._heartbeats = Unchanged()
        self._steadiness = Steadiness()

    def register(self, entry: Instance) -> None:
        """Announce an incarnation; it may claim from now on."""
        self._database.refuse_if_broken()
        with self._write() as tx:
            now_ms = tx.now_ms()
            started = replace(entry, started_at_ms=now_ms, heartbeat_at_ms=now_ms)
            _REGISTER.run(tx, [astuple(started)])
        self._steadiness.note_beat(awake_s())

    def heartbeat(self, incarnation: str, *, state: str = "running") -> bool:
        """Renew all leases of an incarnation; False when it has been buried."""
        self._database.refuse_if_broken()
        with self._write() as tx:
            is_known = bool(_RENEW.run(tx, tx.now_ms(), state, incarnation))
        self._database.measure_clock()
        self._steadiness.note_beat(awake_s())
        return is_known

    def bury(
        self,
        incarnation: str,
        *,
        begun: Collection[Begun] | None = (),
        is_lost: bool = False,
        unless_heard: bool = False,
    ) -> int:
        """Forget a dead incarnation: free its leases and permits; return the leases freed.

        `is_lost`: it said no goodbye and its host does not tell why; unless it was draining,
        `lost_instances` tells of it. `unless_heard`: nothing happens if it has renewed since
        `stale_incarnations` named it. `begun`: what it was sending, held as poison at the third
        death, and in doubt where its provider's key or events settle that; what only waited is
        free. None: nobody knows, and each of its deliveries has an attempt that says so.
        """
        mine = instance.c.incarnation == incarnation
        leased = _D.lease == incarnation
        last_ms = self._heartbeats.last(incarnation) if unless_heard else None
        with self._write() as tx:
            found = tx.execute(select(instance).where(mine).with_for_update()).one_or_none()
            if last_ms is not None and (found is None or found.heartbeat_at_ms != last_ms):
                return 0
            if is_lost and found is not None and found.state != "draining":
                leases = select(func.count()).select_from(delivery).where(leased)
                lost = (incarnation, found.name, found.role, found.pid, found.heartbeat_at_ms)
                _NOTE_LOST.run(tx, [(*lost, tx.execute(leases).scalar_one())])
            tx.execute(delete(instance).where(mine))
            tx.execute(delete(permit).where(permit.c.incarnation == incarnation))
            now_ms = tx.now_ms()
            for queue_id, delivery_no, provider in begun or ():
                is_it = and_(leased, _D.queue_id == queue_id, _D.delivery_no == delivery_no)
                is_settled = provider in self._rules.doubt_waits
                counted = {
                    "reclaims": _D.reclaims + 1,
                    "doubts": _D.doubts + int(is_settled),
                    "provider": provider,
                }
                tx.execute(update(delivery).where(is_it).values(counted))
            write_interrupted(tx, incarnation, begun, now_ms=now_ms)
            freed = _free_leases(tx, incarnation, now_ms)
            _mind_doubts(tx, begun or (), self._rules, now_ms)
            return freed

    def stale_incarnations(self, after_s: float) -> list[str]:
        """Return incarnations whose heartbeat stayed the same for so long while this store looked.

        The first look finds none, and on a shared database none is found while the others may just
        not have had the time.
        """
        with self._read() as tx:
            found: dict[str, int] = dict(_HEARTBEATS.fetch(tx))
        now_s = running_s()
        self._heartbeats.look(found, now_s)
        stale = self._heartbeats.unchanged_for(after_s, now_s)
        if self._database.is_shared and not self._steadiness.has_lasted(after_s, awake_s()):
            return []
        return stale

    def ownerless(self) -> list[str]:
        """Return incarnations that hold leases or permits and are not registered; bury them."""
        with self._read() as tx:
            return [incarnation for (incarnation,) in _OWNERLESS.fetch(tx)]

    def registered(self) -> list[Instance]:
        """Return the registered instances, by role and age."""
        with self._read() as tx:
            rows = _REGISTERED.fetch(tx)
            return [Instance(*row[:-2], *map(tx.to_local, row[-2:])) for row in rows]


def _free_leases(tx: Transaction, incarnation: str, now_ms: int) -> int:
    """End the leases of a dead incarnation; hold what too many died with."""
    is_poison = _D.reclaims >= MAX_RECLAIMS
    state = case(
        (is_poison, DeliveryState.HELD.value),
        (_D.attempts > 0, DeliveryState.DEFERRED.value),
        else_=DeliveryState.INCOMING.value,
    )
    why = {
        name: case((is_poison, value), else_=delivery.c[name])
        for name, value in hold_columns(HoldCause(HoldCode.POISON)).items()
    }
    held_at_ms = case((is_poison, now_ms), else_=None)
    leased = update(delivery).where(_D.lease == incarnation)
    return tx.execute(leased.values(state=state, held_at_ms=held_at_ms, lease=None, **why)).rowcount


def _mind_doubts(tx: Transaction, begun: Collection[Begun], rules: StoreRules, now_ms: int) -> None:
    """Let what events settle wait for them; settle what they have told of already."""
    doubtful = [attempt for attempt in begun if attempt[2] in rules.doubt_waits]
    for queue_id, delivery_no, provider in doubtful:
        wait_ms = int(rules.doubt_waits[provider] * 1000)
        if wait_ms:
            doubts.put_off(tx, [(queue_id, delivery_no)], now_ms + wait_ms)
    doubts.settle_told(
        tx, {(queue_id, delivery_no) for queue_id, delivery_no, _ in doubtful}, rules
    )


def silent_incarnations(
    instances: Iterable[Instance], for_s: float, *, now_ms: int
) -> frozenset[str]:
    """Return the incarnations whose heartbeat is older: to be shown, nobody is buried for it."""
    oldest_ms = now_ms - int(for_s * 1000)
    return frozenset(
        process.incarnation for process in instances if process.heartbeat_at_ms < oldest_ms
    )


FAILING = "failing"  # the state of a delivery that cannot take mail from the queue
STALE_AFTER_S = 15.0  # a process without a heartbeat for longer does not count


def front_trouble(fronts: Sequence[Instance], *, now_ms: int) -> str | None:
    """Return why none of these fronts takes mail, in one line without names; None if one does."""
    if not fronts:
        return "no front is registered"
    running = [entry for entry in fronts if entry.state == "running"]
    if not running:
        return "every front is stopping"
    stale = silent_incarnations(running, STALE_AFTER_S, now_ms=now_ms)
    if all(entry.incarnation in stale for entry in running):
        return f"no front has sent a heartbeat for {STALE_AFTER_S:.0f} s"
    return None


def delivery_trouble(
    workers: Sequence[Instance], *, now_ms: int, is_wanted: bool = False
) -> str | None:
    """Return why none of these delivery workers sends, in one line; None if one does.

    Whoever has none here may have it elsewhere, unless it `is_wanted` here.
    """
    stale = silent_incarnations(workers, STALE_AFTER_S, now_ms=now_ms)
    if is_wanted and not workers:
        return "no delivery is registered"
    if workers and all(worker.incarnation in stale for worker in workers):
        return f"no delivery has sent a heartbeat for {STALE_AFTER_S:.0f} s"
    if workers and all(
        worker.incarnation in stale or worker.state == FAILING for worker in workers
    ):
        return "no delivery can take mail from the queue"
    return None


class Steadiness:
    """The answered heartbeats of one process; times are of a clock that goes on in suspension."""

    def __init__(self) -> None:
        self._since_s = 0.0
        self._last_s: float | None = None

    def note_beat(self, now_s: float) -> None:
        """Count a heartbeat, or the registration, that was answered just now."""
        if self._last_s is None or now_s - self._last_s > MISSED_S:
            self._since_s = now_s
        self._last_s = now_s

    def has_lasted(self, span_s: float, now_s: float) -> bool:
        """True when none was missed for so long; also for who has none and only looks on."""
        if self._last_s is None:
            return True
        return now_s - self._last_s <= MISSED_S and now_s - self._since_s >= span_s


class Unchanged:
    """Numbers by their key, as one process saw them, and since when each is the same."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}

    def look(self, numbers: Mapping[str, int], now_s: float) -> None:
        """Note what was read just now."""
        seen = {}
        for key, number in numbers.items():
            before, since_s = self._seen.get(key, (number, now_s))
            seen[key] = (number, since_s if number == before else now_s)
        self._seen = seen

    def unchanged_for(self, span_s: float, now_s: float) -> list[str]:
        """Return the keys whose number was the same for so long."""
        return [key for key, (_, since_s) in self._seen.items() if now_s - since_s >= span_s]

    def last(self, key: str) -> int | None:
        """Return the number of a key that was seen last."""
        return self._seen.get(key, (None, 0.0))[0]


def running_s() -> float:
    """Return a clock that stands still while the machine is suspended, as all that runs here."""
    return time.monotonic()


# --- lifelines: who lives on this host ----------------------------------------------------


def lifeline_directory(state_dir: Path) -> Path:
    """Return the directory of the lock files."""
    return state_dir / "instances"


class Lifeline:
    """Held for the life of one incarnation."""

    def __init__(self, directory: Path, incarnation: str) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = directory / incarnation
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self._free_slots: list[int] = []
        self._slots = 0

    def begin(self, queue_id: str, delivery_no: int, provider: str) -> int:
        """Note that a delivery is being sent by a provider; return the slot to end it by."""
        if self._free_slots:
            slot = self._free_slots.pop()
        else:
            slot, self._slots = self._slots, self._slots + 1
        record = f"{queue_id} {delivery_no} {provider}".ljust(_SLOT_BYTES - 1) + "\n"
        os.pwrite(self._descriptor, record.encode("ascii"), slot * _SLOT_BYTES)
        return slot

    def end(self, slot: int) -> None:
        """Note that the outcome of a delivery is durable."""
        os.pwrite(self._descriptor, _EMPTY_SLOT, slot * _SLOT_BYTES)
        self._free_slots.append(slot)

    def release(self) -> None:
        """End the incarnation: nobody needs to bury it."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        os.close(self._descriptor)


def dead_incarnations(directory: Path) -> list[str]:
    """Return the incarnations of this host that died without a word."""
    dead = []
    for path in sorted(directory.glob("*")):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            dead.append(path.name)
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)
    return dead


def begun_by(directory: Path, incarnation: str) -> list[Begun]:
    """Return the deliveries that an incarnation was sending when it died, and by whom."""
    try:
        lines = (directory / incarnation).read_text("ascii").splitlines()
    except FileNotFoundError:
        return []
    records = [line.split() for line in lines]
    return [(record[0], int(record[1]), record[2]) for record in records if len(record) == 3]


def forget(directory: Path, incarnation: str) -> None:
    """Remove the lock file of a buried incarnation."""
    with contextlib.suppress(FileNotFoundError):
        (directory / incarnation).unlink()
