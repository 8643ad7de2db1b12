"""How fast the mail goes that is before a message: its route's queue, its providers' pace."""

from __future__ import annotations

from collections.abc import Iterator

from relaygw.operations.story.facts import Facts
from relaygw.operations.story.words import counted
from relaygw.policy.story import Note
from relaygw.store.protocol import DeliveryEntry


def pace_notes(facts: Facts, part: DeliveryEntry) -> Iterator[Note]:
    """Yield what may make a delivery wait that nothing else stops."""
    waiting = facts.queued.get(part.route, 0)
    if waiting > 1:
        yield Note("queue", f"{counted(waiting, 'message')} of its route wait")
    for name in facts.providers(part):
        usage = facts.usages.get(name)
        if usage is None:
            continue
        if usage.is_slower:
            yield Note("pace", f"{name} gets {usage.rate_per_s:.3g}/s, since it asked for less")
        elif usage.settings.rate is not None:
            yield Note("pace", f"{name} gets {usage.settings.rate.per_s:.3g}/s, as its rate says")
        if usage.is_narrower:
            yield Note("pace", f"{name} gets {counted(usage.connections, 'connection')} for now")
