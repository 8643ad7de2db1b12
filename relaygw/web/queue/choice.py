"""Which queued messages a form is about: those that were ticked, or all that match.

All that match ends at the moment when somebody looked, so that nothing is changed that nobody
has seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from starlette.datastructures import FormData

from relaygw.mail.state import DeliveryState
from relaygw.operations.queue_actions import LeftAlone
from relaygw.store.protocol import Store
from relaygw.web.context import is_queue_id
from relaygw.web.queue.selection import Asked, all_messages, in_states, read_asked, until

MAX_TICKED = 1000
_MAX_MS = 10**14


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueChoice:
    """Ticked messages, or, without any, those that `asked` found at `looked_at_ms`."""

    ids: tuple[str, ...]
    asked: Asked
    looked_at_ms: int | None  # None: only what was ticked

    @property
    def is_all(self) -> bool:
        """True for all that match."""
        return self.looked_at_ms is not None

    @property
    def is_empty(self) -> bool:
        """True when nothing was ticked and not all are meant."""
        return not self.ids and not self.is_all

    def words(self) -> str:
        """Return what was chosen, for the audit trail."""
        return f"web, {self.asked.words or 'all that wait'}" if self.is_all else "web"

    def batches(self, store: Store, states: frozenset[DeliveryState]) -> Iterator[list[str]]:
        """Yield the ids, some at a time; of all that match, only those in one of `states`."""
        if self.looked_at_ms is None:
            yield list(self.ids)
            return
        asked = in_states(until(self.asked, self.looked_at_ms), states)
        if asked is not None:
            for page in all_messages(store, asked):
                yield [entry.queue_id for entry in page]

    def missing(self, store: Store) -> list[LeftAlone]:
        """Return the ticked messages that are not there any more."""
        found = {entry.queue_id for entry in store.entries(self.ids)} if self.ids else set()
        return [
            LeftAlone(queue_id=one, why="it is not there any more")
            for one in self.ids
            if one not in found
        ]


def read_queue_choice(form: FormData, *, now_ms: int) -> QueueChoice:
    """Return what a form is about: the ticks, or by `all` or `scope` all that match.

    Raises Problem for conditions that are none.
    """
    is_all = "all" in form or form.get("scope") == "found"
    given = [] if is_all else [str(value) for value in form.getlist("tick")]
    ids = dict.fromkeys(one for one in given if is_queue_id(one))
    looked_at = str(form.get("looked_at", ""))
    is_time = looked_at.isascii() and looked_at.isdigit() and len(looked_at) < 15
    looked_at_ms = min(int(looked_at), _MAX_MS) if is_time else None
    return QueueChoice(
        ids=tuple(ids)[:MAX_TICKED],
        asked=read_asked(form, now_ms=looked_at_ms or now_ms),
        looked_at_ms=looked_at_ms if is_all else None,
    )
