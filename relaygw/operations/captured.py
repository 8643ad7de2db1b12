"""Captured mail that is deleted for good."""

from __future__ import annotations

from collections.abc import Sequence

from relaygw.operations.messages import LeftAlone, Result, batches, entries_of
from relaygw.store.protocol import AuditEntry, Store


def delete_captured(
    store: Store, ids: Sequence[str], *, actor: str, now_ms: int, detail: str = ""
) -> Result:
    """Delete captured messages for good.

    One that still waits to be sent to somebody else only leaves the sandbox. Messages that
    are not captured are left alone.
    """
    changed: list[str] = []
    left: list[LeftAlone] = []
    for batch in batches(ids):
        entries = entries_of(store, batch)
        captured = [entry.queue_id for entry in entries if entry.captured_at_ms is not None]
        left += [
            LeftAlone(queue_id=entry.queue_id, why="it is not captured", is_temporary=False)
            for entry in entries
            if entry.captured_at_ms is None
        ]
        if captured:
            entry = AuditEntry(
                at_ms=now_ms,
                actor=actor,
                action="sandbox.delete",
                target=" ".join(captured),
                affected=len(captured),
                detail=detail,
            )
            store.delete_captured(captured, entry=entry)
            changed += captured
    return Result(changed=tuple(changed), left=tuple(left))
