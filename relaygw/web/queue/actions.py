"""Actions on chosen messages, for pages and the API: which ones a form is about, and the deed.

All that match ends at the moment when somebody looked, so that nothing is changed that nobody
has seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from starlette.datastructures import FormData

from relaygw.mail.state import DeliveryState
from relaygw.operations.queue_actions import (
    LeftAlone,
    Order,
    QueueAction,
    Result,
    change_queued,
    routes_taken,
)
from relaygw.settings.model import Settings
from relaygw.settings.provider import Provider
from relaygw.store.store import Store
from relaygw.web.context import WebContext
from relaygw.web.inbox import Choice, means_all, ticked_ids
from relaygw.web.problem import Problem
from relaygw.web.queue.selection import Asked, all_messages, in_states, read_asked, until

_MAX_MS = 10**14


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueChoice(Choice):
    """Ticked messages, or, without any, those that `asked` found at `looked_at_ms`."""

    box = "tick"
    place = "/queue"

    asked: Asked
    looked_at_ms: int | None  # None: only what was ticked

    @property
    def is_all(self) -> bool:
        """True for all that match."""
        return self.looked_at_ms is not None

    @property
    def found(self) -> str:
        """The conditions."""
        return self.asked.words or "all that wait"

    def list_fields(self) -> list[tuple[str, str]]:
        """Return when somebody looked, and the conditions."""
        looked_at = [("looked_at", str(self.looked_at_ms))] if self.is_all else []
        return [*looked_at, *self.asked.pairs()]

    def list_path(self, form: FormData) -> str:
        """Return the path of the list, its first page."""
        return self.asked.path()

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
        found = {entry.queue_id for entry in store.queue.entries(self.ids)} if self.ids else set()
        return [
            LeftAlone(queue_id=one, why="it is not there any more")
            for one in self.ids
            if one not in found
        ]


def read_queue_choice(form: FormData, *, now_ms: int) -> QueueChoice:
    """Return what a form is about: the ticks, or by `all` or `scope` all that match.

    Raises Problem for conditions that are none.
    """
    looked_at = str(form.get("looked_at", ""))
    is_time = looked_at.isascii() and looked_at.isdigit() and len(looked_at) < 15
    looked_at_ms = min(int(looked_at), _MAX_MS) if is_time else None
    return QueueChoice(
        ids=ticked_ids(form, QueueChoice.box),
        asked=read_asked(form, now_ms=looked_at_ms or now_ms),
        looked_at_ms=looked_at_ms if means_all(form) else None,
    )


def carry_out(
    web: WebContext, action: QueueAction, choice: QueueChoice, order: Order, *, now_ms: int
) -> Result:
    """Do `action` to the messages of a choice; blocks on the store, raises StoreUnavailable."""
    order = replace(order, routes=routes_taken(web.store, web.settings))
    changed: list[str] = []
    left: list[LeftAlone] = choice.missing(web.store)
    for batch in choice.batches(web.store, action.from_states):
        result = change_queued(web.store, action, batch, order, now_ms=now_ms)
        changed += result.changed
        left += result.left
    return Result(changed=tuple(changed), left=tuple(left))


def known_provider(settings: Settings, name: str) -> Provider:
    """Return the settings of a provider; raises Problem for a name that is none's."""
    if name not in settings.providers:
        names = ", ".join(settings.providers) or "none is configured"
        raise Problem(400, f"provider {name[:40]!r} is not known", expected=names)
    return settings.providers[name]
