"""Limits of accounts, shared by all workers, by the database's clock: see decision 10."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from relaygw.mail.clock import DAY_MS
from relaygw.store.database import Repository, Row, Statement, Transaction, Write, insert_into
from relaygw.store.leases import has_ended, is_alive

TOKEN_LEASE_S = 0.25  # handed out so far ahead: nobody keeps the others waiting for long
_CATCH_UP_S = 0.1  # what was not used within this time is lost
_FARTHEST_S = 60.0  # no turn is farther, but at so slow a rate; else the clock was set back
_SLICE_MS = 600_000
_KEPT_MS = DAY_MS + _SLICE_MS  # a slice counts until its end is a day old

_ADD_ACCOUNT = insert_into("account", "limit_group", on_conflict="DO NOTHING", next_slot_us=0)
_NEXT_SLOT = Statement("SELECT next_slot_us FROM account WHERE limit_group = {?} {for_update}")
_MOVE_SLOT = Statement("UPDATE account SET next_slot_us = {?} WHERE limit_group = {?}")
_ACCOUNTS = Statement(
    """
    SELECT limit_group, ceiling_per_s, ceiling_at_ms, ceiling_connections, connections_at_ms,
        wanted_at_ms
    FROM account
    WHERE ceiling_at_ms IS NOT NULL OR connections_at_ms IS NOT NULL OR wanted_at_ms IS NOT NULL
    """
)
_LOWER_RATE = Statement(
    """
    UPDATE account SET ceiling_per_s = {?}, ceiling_at_ms = {?} WHERE limit_group = {?}
    AND (ceiling_at_ms IS NULL OR ceiling_at_ms <= {?} OR ceiling_at_ms > {?})
    """
)
_LOWER_CONNECTIONS = Statement(
    """
    UPDATE account SET ceiling_connections = {?}, connections_at_ms = {?}
    WHERE limit_group = {?}
    AND (ceiling_connections IS NULL OR ceiling_connections > {?} OR connections_at_ms <= {?}
        OR connections_at_ms > {?})
    """
)
_WANT = Statement("UPDATE account SET wanted_at_ms = {?} WHERE limit_group = {?}")
_OTHERS_PERMITS = Statement(
    "SELECT count(*) FROM permit WHERE limit_group = {?} AND incarnation <> {?}"
)
_USED = Statement(
    """
    SELECT slice_at_ms, used FROM usage WHERE limit_group = {?} AND slice_at_ms > {?}
    ORDER BY slice_at_ms
    """
)
_USE = insert_into(
    "usage",
    "limit_group slice_at_ms used",
    on_conflict="(limit_group, slice_at_ms) DO UPDATE SET used = usage.used + excluded.used",
)
_FORGET_USAGE = Statement("DELETE FROM usage WHERE limit_group = {?} AND slice_at_ms <= {?}")
_OF_SENDER = "(provider, sender) DO UPDATE SET"
_SENDER_ACCEPTED = insert_into(
    "sender_seen",
    "provider sender accepted_at_ms",
    on_conflict=f"{_OF_SENDER} accepted_at_ms = excluded.accepted_at_ms",
)
_SENDER_REFUSED = insert_into(
    "sender_seen",
    "provider sender refused_at_ms reply",
    on_conflict=f"{_OF_SENDER} refused_at_ms = excluded.refused_at_ms, reply = excluded.reply",
)
_SENDERS = Statement(
    """
    SELECT provider, sender, accepted_at_ms, refused_at_ms, reply FROM sender_seen
    ORDER BY provider, sender
    """
)
_TAKEN_PERMITS = Statement("SELECT slot FROM permit WHERE limit_group = {?}")
_RELEASE_PERMITS = Statement(
    """
    DELETE FROM permit WHERE limit_group = {?} AND slot IN (
        SELECT slot FROM permit WHERE limit_group = {?} AND incarnation = {?}
        ORDER BY slot DESC LIMIT {?}
    )
    """
)
_OWN_PERMITS = Statement(
    "SELECT count(*) FROM permit WHERE limit_group = {?} AND incarnation = {?}"
)
_TAKE_PERMITS = insert_into(
    "permit", "limit_group slot incarnation leased_at_ms", on_conflict="DO NOTHING"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """How much may be sent, and in how many seconds; with none granted, when to ask again."""

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


class Limits(Repository):
    """What limit groups allow, and who has how much of it."""

    # --- connections ---------------------------------------------------------------------

    def acquire_permits(
        self, limit_group: str, *, wanted: int, limit: int, incarnation: str
    ) -> int:
        """Lease up to `wanted` more of the `limit` permits of a group; return how many.

        The lowest free ones, none to a dead incarnation. If none, `accounts` tells who waits.
        """
        with self._write() as tx:
            now_ms = tx.now_ms()
            granted = 0
            if is_alive(tx, incarnation):
                taken = {slot for (slot,) in _TAKEN_PERMITS.fetch(tx, limit_group)}
                room = min(wanted, max(0, limit - len(taken)))
                free = [slot for slot in range(limit) if slot not in taken][:room]
                rows = [(limit_group, slot, incarnation, now_ms) for slot in free]
                # another instance may take the same slot at this moment: then it is one less here
                granted = _TAKE_PERMITS.run(tx, rows)
            if not granted:
                _ADD_ACCOUNT.run(tx, [(limit_group,)])
                _WANT.run(tx, now_ms, limit_group)
            return granted

    def release_permits(self, limit_group: str, *, count: int, incarnation: str) -> None:
        """Give back `count` permits of a group: the highest, so that a lowered limit is reached."""
        with self._write() as tx:
            if is_alive(tx, incarnation):
                _RELEASE_PERMITS.run(tx, limit_group, limit_group, incarnation, count)

    def permits_held(self, limit_group: str, *, incarnation: str) -> int:
        """Return how many permits of a group an incarnation has.

        For a worker that does not know what a call came to: what that still does is waited for.
        """
        with self._write(Write.UNSYNCED) as tx:
            if has_ended(tx, incarnation):
                return 0
            ((count,),) = _OWN_PERMITS.fetch(tx, limit_group, incarnation)
            return int(count)

    # --- rate and quota ------------------------------------------------------------------

    def take_tokens(self, limit_group: str, *, wanted: int, per_s: float) -> Tokens:
        """Take up to `wanted` tokens of a rate that all workers share.

        The first may be used in `starts_in_s`, then one each 1/rate: none beyond TOKEN_LEASE_S
        ahead, but at least one when its turn is nearer than that.
        """
        with self._write(Write.UNSYNCED) as tx:
            _ADD_ACCOUNT.run(tx, [(limit_group,)])
            ((next_slot_us,),) = _NEXT_SLOT.fetch(tx, limit_group)
            now_us = tx.now_us()
            if next_slot_us - now_us > max(_FARTHEST_S, 2 / per_s) * 1e6:
                next_slot_us = now_us
            start_us = max(next_slot_us, now_us - int(_CATCH_UP_S * 1e6))
            starts_in_s = (start_us - now_us) / 1e6
            ahead_s = TOKEN_LEASE_S - starts_in_s
            if ahead_s <= 0:
                return Tokens(granted=0, starts_in_s=starts_in_s - TOKEN_LEASE_S / 2)
            granted = min(wanted, max(1, math.floor(ahead_s * per_s)))
            _MOVE_SLOT.run(tx, start_us + math.ceil(granted * 1e6 / per_s), limit_group)
            return Tokens(granted=granted, starts_in_s=starts_in_s)

    def use_quota(self, limit_group: str, *, wanted: int, quota: int) -> Tokens:
        """Take up to `wanted` of what the last 24 hours leave of `quota`; negative: give back."""
        with self._write(Write.UNSYNCED) as tx:
            now_ms = tx.now_ms()
            _ADD_ACCOUNT.run(tx, [(limit_group,)])
            _NEXT_SLOT.fetch(tx, limit_group)  # locked: one counts at a time
            slices = _USED.fetch(tx, limit_group, now_ms - _KEPT_MS)
            if wanted < 0:
                _give_back(tx, limit_group, slices, -wanted)
                return Tokens(granted=wanted, starts_in_s=0.0)
            granted = min(wanted, quota - sum(used for _, used in slices))
            if granted > 0:
                _USE.run(tx, [(limit_group, now_ms // _SLICE_MS * _SLICE_MS, granted)])
                _FORGET_USAGE.run(tx, limit_group, now_ms - _KEPT_MS)
                return Tokens(granted=granted, starts_in_s=0.0)
            first_ms = next((at_ms for at_ms, used in slices if used > 0), now_ms)
            return Tokens(granted=0, starts_in_s=max(1.0, (first_ms + _KEPT_MS - now_ms) / 1000))

    def quota_used(self, limit_group: str) -> int:
        """Return how much of its quota a limit group used in the last 24 hours."""
        with self._read() as tx:
            return sum(used for _, used in _USED.fetch(tx, limit_group, tx.now_ms() - _KEPT_MS))

    # --- what providers taught -----------------------------------------------------------

    def accounts(self) -> dict[str, Account]:
        """Return the limits that providers taught, by limit group."""
        with self._read() as tx:
            rows = _ACCOUNTS.fetch(tx)
            return {
                limit_group: Account(
                    ceiling_per_s=per_s,
                    ceiling_at_ms=tx.to_local(slower_ms) or 0,
                    ceiling_connections=connections,
                    connections_at_ms=tx.to_local(refused_ms) or 0,
                    wanted_at_ms=tx.to_local(wanted_ms) or 0,
                )
                for limit_group, per_s, slower_ms, connections, refused_ms, wanted_ms in rows
            }

    def lower_rate(self, limit_group: str, *, per_s: float, guard_s: float) -> None:
        """Note the rate at which a provider said "slower", unless one was within `guard_s`."""
        with self._write(Write.UNSYNCED) as tx:
            _ADD_ACCOUNT.run(tx, [(limit_group,)])
            now_ms, *guarded = _guarded(tx, guard_s)
            _LOWER_RATE.run(tx, per_s, now_ms, limit_group, *guarded)

    def lower_connections(
        self, limit_group: str, *, own: int, incarnation: str, guard_s: float
    ) -> None:
        """Note that no more connections than this worker's `own` and others' permits work."""
        with self._write(Write.UNSYNCED) as tx:
            _ADD_ACCOUNT.run(tx, [(limit_group,)])
            now_ms, *guarded = _guarded(tx, guard_s)
            ((others,),) = _OTHERS_PERMITS.fetch(tx, limit_group, incarnation)
            most = max(1, own + others)
            _LOWER_CONNECTIONS.run(tx, most, now_ms, limit_group, most, *guarded)

    def note_senders(self, notes: Sequence[SenderNote]) -> None:
        """Remember what providers said of sender addresses."""
        with self._write(Write.UNSYNCED) as tx:
            for note in notes:
                who = (note.provider, note.sender)
                if note.accepted_at_ms is not None:
                    _SENDER_ACCEPTED.run(tx, [(*who, tx.to_stored(note.accepted_at_ms))])
                if note.refused_at_ms is not None:
                    refused = (tx.to_stored(note.refused_at_ms), note.reply)
                    _SENDER_REFUSED.run(tx, [(*who, *refused)])

    def senders(self) -> list[SenderNote]:
        """Return the replies of providers to sender addresses, by provider and sender."""
        with self._read() as tx:
            return [
                SenderNote(
                    provider=provider,
                    sender=sender,
                    accepted_at_ms=tx.to_local(accepted_at_ms),
                    refused_at_ms=tx.to_local(refused_at_ms),
                    reply=reply,
                )
                for provider, sender, accepted_at_ms, refused_at_ms, reply in _SENDERS.fetch(tx)
            ]


def _guarded(tx: Transaction, guard_s: float) -> tuple[int, int, int]:
    """Return now, and the guarded time around it: a clock set back leaves notes still to come."""
    now_ms, guard_ms = tx.now_ms(), int(guard_s * 1000)
    return now_ms, now_ms - guard_ms, now_ms + guard_ms


def _give_back(tx: Transaction, limit_group: str, slices: Sequence[Row], amount: int) -> None:
    """Take back what was taken last: no slice may stand for less than nothing."""
    for at_ms, used in reversed(slices):
        back = min(amount, max(0, used))
        if back:
            _USE.run(tx, [(limit_group, at_ms, -back)])
            amount -= back
