"""The last word on each recipient after the provider's 250, and what is new of it.

What providers report is brought into a form that every database takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from relaygw.mail.verdict import Kind, outweighs
from relaygw.store.database import BatchStatement, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVerdict:
    """One thing that was not known of a recipient before."""

    queue_id: str
    rcpt_no: int
    address: str  # the recipient's, as the provider was given it
    kind: Kind
    at_ms: int  # by the provider's clock
    provider: str
    dsn: str | None
    detail: str
    others: int  # how many more addresses the same report names
    before: Kind | None = None  # the last word until then, where this one is the last now
    is_last_word: bool  # False: something that outweighs it is known already


def _weight(column: str) -> str:
    weights = (f"WHEN '{kind}' THEN {sum(outweighs(kind, one) for one in Kind)}" for kind in Kind)
    return f"CASE {column} {' '.join(weights)} ELSE -1 END"


_PUT = BatchStatement(
    f"""
    INSERT INTO verdict (queue_id, rcpt_no, kind, at_ms) VALUES {{rows}}
    ON CONFLICT (queue_id, rcpt_no) DO UPDATE SET kind = excluded.kind, at_ms = excluded.at_ms
    WHERE {_weight("excluded.kind")} > {_weight("verdict.kind")}
    RETURNING queue_id, rcpt_no, kind
    """,
    columns=4,
)


_BEFORE = BatchStatement(
    "SELECT queue_id, rcpt_no, kind FROM verdict WHERE (queue_id, rcpt_no) IN (VALUES {rows})",
    columns=2,
)


def put_verdicts(
    tx: Transaction, told: Iterable[tuple[str, int, Kind, int]]
) -> dict[tuple[str, int, str], Kind | None]:
    """Write what outweighs the last word on a recipient; return these, with the words before."""
    heaviest: dict[tuple[str, int], tuple[Kind, int]] = {}
    for queue_id, rcpt_no, kind, at_ms in told:
        before = heaviest.get((queue_id, rcpt_no))
        if outweighs(kind, before[0] if before else None):
            heaviest[queue_id, rcpt_no] = (kind, at_ms)
    # in one order, so that two who do this at once do not wait for each other
    rows = [(*key, kind.value, at_ms) for key, (kind, at_ms) in sorted(heaviest.items())]
    found = _BEFORE.fetch(tx, sorted(heaviest))
    before_of = {(queue_id, rcpt_no): Kind(kind) for queue_id, rcpt_no, kind in found}
    return {
        (queue_id, rcpt_no, kind): before_of.get((queue_id, rcpt_no))
        for queue_id, rcpt_no, kind in _PUT.fetch(tx, rows)
    }


# --- texts of providers -----------------------------------------------------------------


_MAX_KEY_CHARACTERS = 200  # a longer one is hashed: an index takes 2,700 bytes at most


def short_key(key: str) -> str:
    """Return a key that an index takes, and the same for the same."""
    if clean(key) == key and len(key) <= _MAX_KEY_CHARACTERS:
        return key
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def clean(text: str) -> str:
    """Return text that every database takes: JSON may hold NUL and halves of characters."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def past(at_ms: int, now_ms: int) -> int:
    """Return the time of something that has happened, whatever a provider's clock says."""
    return min(max(at_ms, 0), now_ms)
