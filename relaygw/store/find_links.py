"""What web.link_header says of mail that was accepted before it was set, while content is kept."""

from __future__ import annotations

from relaygw.mail.content import link_value, read_header
from relaygw.store.database import BatchStatement, Row, Statement, Transaction, insert_into
from relaygw.store.find_index import note_changed

_AFTER_ALL = "Z" * 21  # greater than every queue id
_BEFORE = Statement("SELECT before_id FROM link_backfill WHERE header = {?}")
_MOVE = insert_into(
    "link_backfill",
    "header before_id",
    on_conflict="(header) DO UPDATE SET before_id = excluded.before_id",
)
_OLDER = Statement(
    """
    SELECT queue_id, chunk_count > 0 AND link_value IS NULL FROM message WHERE queue_id < {?}
    ORDER BY queue_id DESC LIMIT {?}
    """
)
_HEADS = BatchStatement(
    "SELECT queue_id, body FROM chunk WHERE chunk_no = 0 AND queue_id IN (VALUES {rows})",
    columns=1,
)
_SET = BatchStatement(
    """
    UPDATE message SET link_value = v.column2 FROM (VALUES {rows}) AS v
    WHERE message.queue_id = v.column1 AND message.link_value IS NULL
    """,
    columns=2,
)


def read_links(tx: Transaction, header: str, *, limit: int) -> tuple[int, list[Row], str]:
    """Return how many older messages were looked at, their values, and where the next begin."""
    found = _BEFORE.fetch(tx, header.lower())
    before_id = found[0][0] if found else _AFTER_ALL
    rows = _OLDER.fetch(tx, before_id, limit) if before_id else []
    kept = [(queue_id,) for queue_id, is_kept in rows if is_kept]
    names = frozenset([header.lower()])
    values = (
        (queue_id, link_value(read_header(bytes(body), names), header))
        for queue_id, body in _HEADS.fetch(tx, kept)
    )
    next_id = rows[-1][0] if len(rows) == limit else ""
    return len(rows), [(queue_id, value) for queue_id, value in values if value], next_id


def write_links(tx: Transaction, header: str, values: list[Row], next_id: str) -> None:
    """Write values of older mail, and have its words written anew."""
    _SET.run(tx, values)
    note_changed(tx, [queue_id for queue_id, _ in values])
    _MOVE.run(tx, [(header.lower(), next_id)])
