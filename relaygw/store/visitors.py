"""Uses of the API's tokens, and throttled clients.

Nothing of when they were last seen is synced by itself. Each table of strangers is bounded,
whatever they send.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, delete, select, tuple_

from relaygw.store.database import Repository, Statement, Transaction, Write, insert_into
from relaygw.store.side_tables import throttled, token_use

MAX_VALUES = 50  # user agents, and networks, of a token: the longest unused is forgotten
MAX_THROTTLED = 1000
_SEEN = "last_seen_ms = CASE WHEN {0}.last_seen_ms > excluded.last_seen_ms THEN {0}.last_seen_ms"
_USED = insert_into(
    "token_use",
    "token kind value first_seen_ms last_seen_ms",
    on_conflict="(token, kind, value) DO UPDATE SET "
    f"{_SEEN.format('token_use')} ELSE excluded.last_seen_ms END",
)
_NEWEST = "ORDER BY first_seen_ms DESC, token, kind, value"
_USES = Statement(f"SELECT * FROM token_use WHERE first_seen_ms >= {{?}} {_NEWEST}")
_STRANGE = Statement(
    f"""
    SELECT * FROM token_use AS one WHERE first_seen_ms >= {{?}} AND EXISTS (
        SELECT 1 FROM token_use AS before WHERE before.token = one.token
            AND before.kind = one.kind AND before.first_seen_ms < one.first_seen_ms)
    {_NEWEST}
    """
)
_THROTTLED = insert_into(
    "throttled",
    "listener client cause first_seen_ms last_seen_ms times",
    on_conflict="(listener, client, cause) DO UPDATE SET times = throttled.times + excluded.times, "
    f"{_SEEN.format('throttled')} ELSE excluded.last_seen_ms END",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUse:
    """What a token was used with: a user agent, or a network."""

    token: str
    kind: str  # agent | network
    value: str
    first_seen_ms: int
    last_seen_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttled:
    """A client that came too often, and was told to come later."""

    listener: str
    client: str  # an address, of IPv6 the /64; or a user
    cause: str  # rate | connections | logins
    first_seen_ms: int
    last_seen_ms: int
    times: int


class Visitors(Repository):
    """Uses of tokens, and throttled clients, of all instances."""

    def note_uses(self, uses: Iterable[TokenUse]) -> None:
        """Write what tokens were used with; of very much only the newest is kept."""
        with self._write(Write.UNSYNCED) as tx:
            rows = [
                (use.token, use.kind, use.value, *_times(tx, use))
                for use in sorted(uses, key=lambda use: (use.token, use.kind, use.value))
            ]
            _USED.run(tx, rows)
            for token, kind in sorted({row[:2] for row in rows}):
                is_such = (token_use.c.token == token) & (token_use.c.kind == kind)
                _keep_newest(tx, token_use, MAX_VALUES, is_such)

    def uses(self, since_ms: int = 0, *, are_strange: bool = False) -> list[TokenUse]:
        """Return the first uses of tokens since a time, the newest first.

        `are_strange`: only what a token came with that had been used with others before.
        """
        query = _STRANGE if are_strange else _USES
        with self._read() as tx:
            rows = query.fetch_named(tx, tx.to_stored(since_ms))
            return [tx.entry(TokenUse, row, "first_seen_ms", "last_seen_ms") for row in rows]

    def note_throttled(self, found: Iterable[Throttled]) -> None:
        """Add how often clients were throttled; of very many only the latest are kept."""
        with self._write(Write.UNSYNCED) as tx:
            rows = [
                (client.listener, client.client, client.cause, *_times(tx, client), client.times)
                for client in sorted(
                    found, key=lambda client: (client.listener, client.client, client.cause)
                )
            ]
            _THROTTLED.run(tx, rows)
            _keep_newest(tx, throttled, MAX_THROTTLED)

    def throttled(self, since_ms: int = 0) -> list[Throttled]:
        """Return who was throttled since a time, the latest first."""
        latest = (throttled.c.last_seen_ms.desc(), *throttled.primary_key)
        with self._read() as tx:
            is_recent = throttled.c.last_seen_ms >= tx.to_stored(since_ms)
            rows = tx.execute(select(throttled).where(is_recent).order_by(*latest))
            return [tx.entry(Throttled, row, "first_seen_ms", "last_seen_ms") for row in rows]


def _times(tx: Transaction, visit: TokenUse | Throttled) -> tuple[int, int]:
    return tx.to_stored(visit.first_seen_ms), tx.to_stored(visit.last_seen_ms)


def _keep_newest(tx: Transaction, table: Table, most: int, *where: Any) -> None:
    keys = list(table.primary_key)
    newest_first = (table.c.last_seen_ms.desc(), *keys)
    rest = select(*keys).where(*where).order_by(*newest_first).offset(most).limit(most)
    gone = tx.execute(rest).all()
    if gone:
        tx.execute(delete(table).where(tuple_(*keys).in_([tuple(row) for row in gone])))
