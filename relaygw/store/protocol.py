"""The seam between the store and everyone else.

Every method is one transaction (reads: one snapshot), safe to call from any thread, and
raises StoreUnavailable when nothing was changed and trying again is right. What a write
method returns from is durable: it survives a crash of the process and of the machine.
`tests/contract` holds what every implementation must do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from relaygw.mail.envelope import (
    AcceptedMessage,
    ClaimedDelivery,
    DeliveryUpdate,
    ReleasedDelivery,
    Source,
)
from relaygw.mail.standing import Rerouting
from relaygw.mail.state import OPEN, DeliveryState, RecipientState
from relaygw.store.attempts import Attempts
from relaygw.store.captured import CapturedMail
from relaygw.store.commands import EVERYTHING_DONE, QueueCommands, Trail
from relaygw.store.watching import Watching


@dataclass(frozen=True, slots=True, kw_only=True)
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


UNREACHABLE = "unreachable"
"""The scope of a hold that says: this provider cannot be reached, and is tried by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A stop on a provider, credential, sender domain or route; or an outage."""

    scope: str
    key: str
    reason: str
    remedy: str
    since_ms: int
    probe_at_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What may be sent of a limited provider: how much, and in how many seconds.

    With none granted, `starts_in_s` says when to ask again.
    """

    granted: int
    starts_in_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What is known of a limit group: where its provider said "slower" or "too many"."""

    ceiling_per_s: float | None = None
    ceiling_at_ms: int = 0
    ceiling_connections: int | None = None
    connections_at_ms: int = 0
    wanted_at_ms: int = 0  # when a worker last found all permits taken


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderNote:
    """When a provider last accepted, and last refused, mail from a sender address."""

    provider: str
    sender: str
    accepted_at_ms: int | None = None
    refused_at_ms: int | None = None
    reply: str | None = None  # the last refusal


MAX_TEXT_CHARACTERS = 1000
"""Of a text that is looked for: far below what SQLite takes as a pattern."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which messages: every condition set must hold; texts match anywhere, without case."""

    queue_ids: tuple[str, ...] = ()
    sender: str | None = None
    recipient: str | None = None
    subject: str | None = None
    states: frozenset[DeliveryState] = OPEN
    provider: str | None = None
    route: str | None = None
    stream: str | None = None
    client: str | None = None
    accepted_before_ms: int | None = None
    reason: str | None = None
    reply: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientEntry:
    """A recipient as an operator sees it."""

    rcpt_no: int
    delivery_no: int
    address: str
    original: str | None
    state: RecipientState
    provider: str | None
    reply: str | None
    dsn: str | None
    attempts: int
    changed_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryEntry:
    """A delivery as an operator sees it."""

    delivery_no: int
    route: str
    stream: str
    state: DeliveryState
    due_at_ms: int
    attempts: int
    provider: str | None
    reason: str | None
    released: str | None = None  # of captured mail that was let go: see mail.envelope.Released
    is_in_doubt: bool = False  # `provider` may have taken it already


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEntry:
    """A message with its deliveries and recipients as an operator sees it."""

    queue_id: str
    accepted_at_ms: int
    sender: str
    subject: str
    message_id: str
    size_bytes: int
    chunk_count: int
    mode: str
    source: Source
    captured_at_ms: int | None
    read_at_ms: int | None
    deliveries: tuple[DeliveryEntry, ...]
    recipients: tuple[RecipientEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneCount:
    """How many deliveries of a route are in a state, and the oldest acceptance.

    `recipients` are those that still wait.
    """

    route: str
    stream: str
    state: DeliveryState
    deliveries: int
    recipients: int
    oldest_accepted_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """What an operator did."""

    at_ms: int
    actor: str
    action: str
    target: str
    affected: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What is let out of one captured message, and the line for the audit trail."""

    queue_id: str
    deliveries: tuple[ReleasedDelivery, ...]
    entry: AuditEntry


Key = tuple[str, int]
"""A delivery: queue id and delivery number."""
Begun = tuple[str, int, str]
"""A delivery that was being sent, and the provider: queue id, delivery number, name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What became of a batch of outcomes."""

    is_alive: bool  # False: the incarnation is dead, and nothing was written
    lost: tuple[Key, ...] = ()  # not written, now or before: their leases were over


class InFlight(Protocol):
    """Remembers, beyond the death of the process, which deliveries are being sent."""

    def begin(self, queue_id: str, delivery_no: int, provider: str) -> int:
        """Note that a delivery is being sent by a provider; return the slot to end it by."""

    def end(self, slot: int) -> None:
        """Note that the outcome of a delivery is durable."""


@dataclass(slots=True)
class Recovered:
    """What a recovery came to; `damaged` has queue ids with what is missing."""

    recovered: int = 0
    held: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    is_log_lost: bool = False
    aside: Path | None = None
    """Where the old database is now; None when nothing was wrong and nothing was done."""
    exported: Path | None = None
    """The directory with what is left of damaged mail."""


class Store(Attempts, CapturedMail, QueueCommands, Watching, Protocol):
    """The queue in a database."""

    def close(self) -> None:
        """Close all connections."""

    def clock_ms(self) -> int:
        """Return the time, in ms, by the clock that all times of the queue are kept by.

        It costs no call: where that is the database's, as it was when it was last measured.
        """

    # --- the front -----------------------------------------------------------------------

    def accept_batch(self, messages: Sequence[AcceptedMessage]) -> None:
        """Store all of `messages` or none; a delivery without pending recipients is finished.

        Raises AlreadyAccepted when one has the drop id of a message that was stored before, and
        StoreUnavailable when content that was stored ahead of its message is not there any more.
        """

    def add_chunks(self, queue_id: str, first_no: int, bodies: Sequence[bytes]) -> None:
        """Store content of a large message ahead of it.

        It is cleared when for an hour nothing more of it came, and no message.
        """

    # --- the delivery worker -------------------------------------------------------------

    def claim(
        self, route: str, *, limit: int, incarnation: str, now_ms: int
    ) -> list[ClaimedDelivery]:
        """Lease up to `limit` due deliveries of a route to a living incarnation.

        New mail and due retries share the limit, clients take turns, the oldest first.
        Returns nothing when the incarnation is not registered (any more). The leases need not
        survive the machine: its workers do not either.
        """

    def next_due_at_ms(self, route: str) -> int | None:
        """Return when the next delivery of a route is due, or None; new mail always is."""

    def restart_waits(self, *, limit: int) -> int:
        """Let up to `limit` deferred deliveries wait anew from now; return how many.

        Those only that were put off at a time still to come: the clock was set back since, and
        they would wait until it has caught up.
        """

    def read_chunk(self, queue_id: str, chunk_no: int) -> bytes | None:
        """Return one chunk of content, or None when it is gone."""

    def record_batch(
        self, updates: Sequence[DeliveryUpdate], *, incarnation: str, now_ms: int
    ) -> Recorded:
        """Write outcomes and end the leases; no change if the incarnation is dead.

        The outcome of a part (state ACTIVE) leaves the lease; a delivery stands once in `updates`.
        Its due time differs from that of the outcome before. What a call before this one wrote,
        whose answer was lost, stays as it is. What is told too late and may have been sent is
        noted as an attempt in doubt.
        """

    def give_back(self, deliveries: Sequence[Key], *, incarnation: str) -> None:
        """End leases without an attempt; the deliveries are due as they were before."""

    def free_unknown(self, route: str, *, known: Collection[Key], incarnation: str) -> int:
        """End what leases an incarnation has on a route, but for those it knows; return how many.

        For a worker that does not know what a claim or a return of leases came to. What such a
        call still does in the database is waited for.
        """

    # --- instances -----------------------------------------------------------------------

    def register(self, entry: Instance) -> None:
        """Announce an incarnation; it may claim from now on."""

    def heartbeat(self, incarnation: str, *, state: str = "running") -> bool:
        """Renew all leases of an incarnation; False when it has been buried."""

    def bury(
        self,
        incarnation: str,
        *,
        begun: Collection[Begun] | None = (),
        is_lost: bool = False,
        unless_heard: bool = False,
    ) -> int:
        """Forget a dead incarnation: free its leases and permits; return the leases freed.

        `is_lost`: it said no goodbye and its host does not tell why; `lost_instances` does then,
        unless it was draining. `unless_heard`: nothing happens if it has renewed since
        `stale_incarnations` named it.

        `begun` names deliveries it was sending when it died: one that was in the hands of
        three dying workers is held as `poison`, those that only waited are free. None: nobody
        knows, and each of its deliveries has an attempt that says so.
        """

    def stale_incarnations(self, after_s: float) -> list[str]:
        """Return incarnations whose heartbeat stayed the same for so long while this store looked.

        Ask again and again: who asks for the first time is told of none. No clock that somebody
        sets has a say.
        """

    def ownerless(self) -> list[str]:
        """Return incarnations that hold leases or permits and are not registered; bury them."""

    def instances(self) -> list[Instance]:
        """Return the registered instances."""

    # --- limits and holds ----------------------------------------------------------------

    def acquire_permits(
        self, limit_group: str, *, wanted: int, limit: int, incarnation: str
    ) -> int:
        """Lease up to `wanted` more of the `limit` permits of a group; return how many.

        None to a dead incarnation. When none is left, `accounts` tells the other workers that
        somebody waits.
        """

    def release_permits(self, limit_group: str, *, count: int, incarnation: str) -> None:
        """Give back `count` permits of a group."""

    def permits_held(self, limit_group: str, *, incarnation: str) -> int:
        """Return how many permits of a group an incarnation has.

        For a worker that does not know what one of the two above came to. What such a call
        still does in the database is waited for.
        """

    def take_tokens(self, limit_group: str, *, wanted: int, per_s: float) -> Tokens:
        """Take tokens of a rate that all workers share; the granted ones are spaced by it."""

    def use_quota(self, limit_group: str, *, wanted: int, quota: int) -> Tokens:
        """Take of what the last 24 hours leave of a quota; negative: give back."""

    def quota_used(self, limit_group: str) -> int:
        """Return how much of its quota a limit group used in the last 24 hours."""

    def accounts(self) -> dict[str, Account]:
        """Return what providers taught of their limits, by limit group."""

    def lower_rate(self, limit_group: str, *, per_s: float, guard_s: float) -> None:
        """Note the rate at which a provider said "slower", unless one was within `guard_s`."""

    def lower_connections(
        self, limit_group: str, *, own: int, incarnation: str, guard_s: float
    ) -> None:
        """Note that no more connections than this worker's `own` and others' permits work."""

    def note_senders(self, notes: Sequence[SenderNote]) -> None:
        """Remember what providers said of sender addresses."""

    def senders(self) -> list[SenderNote]:
        """Return what providers said of sender addresses."""

    def held_reasons(self) -> list[str]:
        """Return the different reasons for which deliveries are held."""

    def release_held(self, reason: str, *, limit: int, now_ms: int) -> int:
        """Make up to `limit` deliveries that are held for exactly `reason` due; return how many."""

    def let_go(self, keys: Sequence[Key], *, reason: str, now_ms: int) -> int:
        """Make those of `keys` due that are held, or wait longer, for exactly `reason`.

        Returns how many.
        """

    def routes_waiting(self) -> list[str]:
        """Return the routes that something may be claimed of, now or when it is due."""

    def reroute(self, steps: Sequence[Rerouting], *, entry: AuditEntry) -> int:
        """Let deliveries that wait take other routes; audited; return how many.

        Due times stay. One that was taken, or has come in doubt, meanwhile stays as it is.
        """

    def holds(self) -> list[Hold]:
        """Return the holds in force."""

    def put_hold(self, hold: Hold, *, entry: AuditEntry | None = None) -> bool:
        """Set a hold, or renew its reason and probe time; True if it is new; audited by `entry`.

        One in force without a probe time is an operator's: only another such one renews it.
        """

    def drop_hold(
        self, scope: str, key: str, *, now_ms: int, entry: AuditEntry | None = None
    ) -> bool:
        """Release a hold; False if there was none; audited by `entry`, if there was one.

        Without `entry` it is a probe that went through, which does not end an operator's hold.
        """

    def held_ms(self, key: str, *, since_ms: int, now_ms: int) -> int:
        """Return how long between the two times a hold on `key` was in force, ended ones too."""

    # --- the operator --------------------------------------------------------------------

    def search(self, selection: Selection, *, limit: int, after: str = "") -> list[QueueEntry]:
        """Return messages in the order of acceptance, those after queue id `after`."""

    def change_state(
        self,
        queue_ids: Sequence[str],
        *,
        from_states: frozenset[DeliveryState],
        to: DeliveryState,
        reason: str | None,
        due_at_ms: int,
        entry: AuditEntry,
    ) -> int:
        """Move the deliveries of `queue_ids` that are in `from_states`; audited; return how many.

        A lease is never taken away: active deliveries stay, whatever `from_states` says.
        """

    def counts(self) -> list[LaneCount]:
        """Return the open deliveries by route and state."""

    def audit_entries(self, *, limit: int, trail: Trail = EVERYTHING_DONE) -> list[AuditEntry]:
        """Return what operators did, newest first."""

    # --- captured mail -------------------------------------------------------------------

    def release_captured(self, releases: Sequence[Release]) -> frozenset[str]:
        """Add deliveries to captured messages, due at once, each audited; return which messages.

        All of a message's or none: none when it is not captured or has no content (any more),
        or already waits to be sent to one of the new recipients.
        """

    # --- the janitor ---------------------------------------------------------------------

    def purge(self, cutoffs: Mapping[str, int], *, limit: int) -> int:
        """Delete what is over its time, at most `limit` messages a call; return how many.

        Cutoffs are `finished`, `captured`, `deleted` and `orphans`, each a time in ms before
        which such things go: orphans when a store that was open then saw them as they are now.
        Logins that have expired go as well.
        """

    def shed_content(self, before_ms: int) -> bool:
        """Delete a piece of the content of a message finished before; False when none is left."""

    def trim_captured(self, *, keep: int, limit: int) -> int:
        """Delete the oldest captured messages above `keep`; return how many."""

    def checkpoint(self) -> bool:
        """Keep the database's own log short; writers wait for a moment at most.

        True when it grows fast: call again soon, since moving much at once slows every sync.
        """

    def shrink(self) -> None:
        """Give some of the space back that deleted mail left, a small step a call."""


def silent_incarnations(
    instances: Iterable[Instance], for_s: float, *, now_ms: int
) -> frozenset[str]:
    """Return the incarnations whose heartbeat is older: to be shown, nobody is buried for it."""
    oldest_ms = now_ms - int(for_s * 1000)
    return frozenset(one.incarnation for one in instances if one.heartbeat_at_ms < oldest_ms)


def read_content(store: Store, entry: QueueEntry) -> Iterator[bytes]:
    """Yield the stored content of a message chunk by chunk; stops early when it is gone."""
    for chunk_no in range(entry.chunk_count):
        body = store.read_chunk(entry.queue_id, chunk_no)
        if body is None:
            return
        yield body
