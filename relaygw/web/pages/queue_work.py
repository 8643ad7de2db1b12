"""A change of chosen messages carried out, for pages and the API."""

from __future__ import annotations

from relaygw.operations import LeftAlone, Result
from relaygw.web.pages.desk import Desk
from relaygw.web.pages.queue_choice import QueueChoice
from relaygw.web.pages.queue_verbs import Order, Verb


def carry_out(desk: Desk, verb: Verb, choice: QueueChoice, order: Order) -> Result:
    """Do `verb` to the messages of a choice; blocks on the store, raises StoreUnavailable."""
    changed: list[str] = []
    left: list[LeftAlone] = choice.missing(desk.store)
    for batch in choice.batches(desk.store, verb.states):
        result = verb.carry_out(desk.store, desk.settings, batch, order)
        changed += result.changed
        left += result.left
    return Result(changed=tuple(changed), left=tuple(left))
