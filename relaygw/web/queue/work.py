"""A change of chosen messages carried out, for pages and the API."""

from __future__ import annotations

from dataclasses import replace

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
from relaygw.web.context import Desk
from relaygw.web.problem import Problem
from relaygw.web.queue.choice import QueueChoice


def carry_out(
    desk: Desk, action: QueueAction, choice: QueueChoice, order: Order, *, now_ms: int
) -> Result:
    """Do `action` to the messages of a choice; blocks on the store, raises StoreUnavailable."""
    order = replace(order, routes=routes_taken(desk.store, desk.settings))
    changed: list[str] = []
    left: list[LeftAlone] = choice.missing(desk.store)
    for batch in choice.batches(desk.store, action.from_states):
        result = change_queued(desk.store, action, batch, order, now_ms=now_ms)
        changed += result.changed
        left += result.left
    return Result(changed=tuple(changed), left=tuple(left))


def known_provider(settings: Settings, name: str) -> Provider:
    """Return the settings of a provider; raises Problem for a name that is none's."""
    if name not in settings.providers:
        names = ", ".join(settings.providers) or "none is configured"
        raise Problem(400, f"provider {name[:40]!r} is not known", expected=names)
    return settings.providers[name]
