"""Messages by their ids, as they are now, and what came of a change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from relaygw.mail.state import DeliveryState
from relaygw.store.protocol import QueueEntry, Store

BATCH_MESSAGES = 500
"""Messages changed in one transaction, so that the front never waits long for the store."""

BEING_SENT = "a worker is sending it right now"

ANY_STATE = frozenset(DeliveryState)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftAlone:
    """A message that an action does not touch, and why."""

    queue_id: str
    why: str
    is_temporary: bool  # True: trying again later may work


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What an action did."""

    changed: tuple[str, ...]  # queue ids
    left: tuple[LeftAlone, ...]


def left_alone(entry: QueueEntry, why: str, *, is_temporary: bool = False) -> LeftAlone:
    """Return that a message is not touched."""
    return LeftAlone(queue_id=entry.queue_id, why=why, is_temporary=is_temporary)


def batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield ids, each once, as many as one transaction changes."""
    unique = tuple(dict.fromkeys(ids))
    for start in range(0, len(unique), BATCH_MESSAGES):
        yield unique[start : start + BATCH_MESSAGES]


def entries_of(store: Store, ids: Sequence[str]) -> list[QueueEntry]:
    """Return the messages that there are, in the order of acceptance."""
    return store.entries(ids)
