"""Limits of accounts, shared by all workers: rate, quota, and what a provider taught.

A limit group is an account, or a provider on its own. Its rate is a row with the time at which
the next one may go: whoever takes tokens moves it on, so the rate holds for all together. The
database's clock decides. Quotas count slices of ten minutes over the last 24 hours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

from sqlalchemy import Connection

from relaygw.store.batch import Row, Statement
from relaygw.store.protocol import Account, SenderNote, Tokens

TOKEN_LEASE_S = 0.25
"""Tokens are handed out so far ahead, so that no worker keeps the others waiting for long."""
_CATCH_UP_S = 0.1  # what was not used within this time is lost
_FARTHEST_S = 60.0
"""No turn is farther away, but at a rate that is as slow; else the clock was set back."""
_DAY_MS = 86_400_000
_SLICE_MS = 600_000
_KEPT_MS = _DAY_MS + _SLICE_MS
"""A slice counts until its end is a day old."""

_ADD_ACCOUNT = Statement(
    """
    INSERT INTO account (limit_group, next_slot_us) VALUES ({?}, 0)
    ON CONFLICT (limit_group) DO NOTHING
    """
)
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
    UPDATE account SET ceiling_per_s = {?}, ceiling_at_ms = {?}
    WHERE limit_group = {?}
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
_USE = Statement(
    """
    INSERT INTO usage (limit_group, slice_at_ms, used) VALUES ({?}, {?}, {?})
    ON CONFLICT (limit_group, slice_at_ms) DO UPDATE SET used = usage.used + excluded.used
    """
)
_FORGET_USAGE = Statement("DELETE FROM usage WHERE limit_group = {?} AND slice_at_ms <= {?}")
_SENDER_ACCEPTED = Statement(
    """
    INSERT INTO sender_seen (provider, sender, accepted_at_ms) VALUES ({?}, {?}, {?})
    ON CONFLICT (provider, sender) DO UPDATE SET accepted_at_ms = excluded.accepted_at_ms
    """
)
_SENDER_REFUSED = Statement(
    """
    INSERT INTO sender_seen (provider, sender, refused_at_ms, reply) VALUES ({?}, {?}, {?}, {?})
    ON CONFLICT (provider, sender)
    DO UPDATE SET refused_at_ms = excluded.refused_at_ms, reply = excluded.reply
    """
)
_SENDERS = Statement(
    """
    SELECT provider, sender, accepted_at_ms, refused_at_ms, reply FROM sender_seen
    ORDER BY provider, sender
    """
)


def take_tokens(
    connection: Connection,
    limit_group: str,
    *,
    wanted: int,
    per_s: float,
    clock_us: Callable[[Connection], int],
) -> Tokens:
    """Take up to `wanted` tokens; the first may be used in `starts_in_s`, then one each 1/rate.

    None are granted beyond TOKEN_LEASE_S ahead, but at least one mail's worth, `wanted`, when
    its turn is nearer than that.
    """
    _ADD_ACCOUNT.run(connection, limit_group)
    ((next_slot_us,),) = _NEXT_SLOT.fetch(connection, limit_group)
    now_us = clock_us(connection)
    if next_slot_us - now_us > max(_FARTHEST_S, 2 / per_s) * 1e6:
        next_slot_us = now_us
    start_us = max(next_slot_us, now_us - int(_CATCH_UP_S * 1e6))
    ahead_s = TOKEN_LEASE_S - (start_us - now_us) / 1e6
    starts_in_s = (start_us - now_us) / 1e6
    if ahead_s <= 0:
        return Tokens(granted=0, starts_in_s=starts_in_s - TOKEN_LEASE_S / 2)
    granted = min(wanted, max(1, math.floor(ahead_s * per_s)))
    _MOVE_SLOT.run(connection, start_us + math.ceil(granted * 1e6 / per_s), limit_group)
    return Tokens(granted=granted, starts_in_s=starts_in_s)


def use_quota(
    connection: Connection, limit_group: str, *, wanted: int, quota: int, now_ms: int
) -> Tokens:
    """Take up to `wanted` of what the last 24 hours leave of `quota`; negative gives back."""
    _ADD_ACCOUNT.run(connection, limit_group)
    _NEXT_SLOT.fetch(connection, limit_group)  # locked: one counts at a time
    slices = _USED.fetch(connection, limit_group, now_ms - _KEPT_MS)
    room = quota - sum(used for _, used in slices)
    if wanted < 0:
        _give_back(connection, limit_group, slices, -wanted)
        return Tokens(granted=wanted, starts_in_s=0.0)
    granted = min(wanted, room)
    if granted > 0:
        _USE.run(connection, limit_group, now_ms // _SLICE_MS * _SLICE_MS, granted)
        _FORGET_USAGE.run(connection, limit_group, now_ms - _KEPT_MS)
        return Tokens(granted=granted, starts_in_s=0.0)
    first_ms = next((at_ms for at_ms, used in slices if used > 0), now_ms)
    return Tokens(granted=0, starts_in_s=max(1.0, (first_ms + _KEPT_MS - now_ms) / 1000))


def _give_back(
    connection: Connection, limit_group: str, slices: Sequence[Row], amount: int
) -> None:
    """Take back what was taken last: no slice may stand for less than nothing."""
    for at_ms, used in reversed(slices):
        back = min(amount, max(0, used))
        if back:
            _USE.run(connection, limit_group, at_ms, -back)
            amount -= back


def quota_used(connection: Connection, limit_group: str, *, now_ms: int) -> int:
    """Return how much the last 24 hours took."""
    return sum(used for _, used in _USED.fetch(connection, limit_group, now_ms - _KEPT_MS))


def accounts(connection: Connection) -> dict[str, Account]:
    """Return what providers taught of their limits, by limit group."""
    return {
        limit_group: Account(
            ceiling_per_s=per_s,
            ceiling_at_ms=at_ms or 0,
            ceiling_connections=connections,
            connections_at_ms=connections_at_ms or 0,
            wanted_at_ms=wanted_at_ms or 0,
        )
        for (
            limit_group,
            per_s,
            at_ms,
            connections,
            connections_at_ms,
            wanted_at_ms,
        ) in _ACCOUNTS.fetch(connection)
    }


def note_wanted(connection: Connection, limit_group: str, *, now_ms: int) -> None:
    """Let those who hold permits and do not use them know that somebody waits."""
    _ADD_ACCOUNT.run(connection, limit_group)
    _WANT.run(connection, now_ms, limit_group)


def lower_rate(
    connection: Connection, limit_group: str, *, per_s: float, now_ms: int, guard_s: float
) -> None:
    """Note the rate at which a provider said "slower", unless somebody did within `guard_s`."""
    _ADD_ACCOUNT.run(connection, limit_group)
    not_since_ms = now_ms - int(guard_s * 1000)
    still_to_come_ms = now_ms + int(guard_s * 1000)  # the clock was set back since
    _LOWER_RATE.run(connection, per_s, now_ms, limit_group, not_since_ms, still_to_come_ms)


def lower_connections(
    connection: Connection,
    limit_group: str,
    *,
    own: int,
    incarnation: str,
    now_ms: int,
    guard_s: float,
) -> None:
    """Note how many connections a provider bore: this worker's own, and others' permits."""
    _ADD_ACCOUNT.run(connection, limit_group)
    ((others,),) = _OTHERS_PERMITS.fetch(connection, limit_group, incarnation)
    most = max(1, own + others)
    not_since_ms = now_ms - int(guard_s * 1000)
    still_to_come_ms = now_ms + int(guard_s * 1000)  # the clock was set back since
    _LOWER_CONNECTIONS.run(
        connection, most, now_ms, limit_group, most, not_since_ms, still_to_come_ms
    )


def note_senders(connection: Connection, notes: Sequence[SenderNote]) -> None:
    """Remember what providers said of sender addresses."""
    for note in notes:
        if note.accepted_at_ms is not None:
            _SENDER_ACCEPTED.run(connection, note.provider, note.sender, note.accepted_at_ms)
        if note.refused_at_ms is not None:
            _SENDER_REFUSED.run(
                connection, note.provider, note.sender, note.refused_at_ms, note.reply
            )


def senders(connection: Connection) -> list[SenderNote]:
    """Return what is remembered, by provider and sender."""
    return [
        SenderNote(
            provider=cast("str", provider),
            sender=sender,
            accepted_at_ms=accepted_at_ms,
            refused_at_ms=refused_at_ms,
            reply=reply,
        )
        for provider, sender, accepted_at_ms, refused_at_ms, reply in _SENDERS.fetch(connection)
    ]
