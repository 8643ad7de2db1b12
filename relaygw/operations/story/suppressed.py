"""What a story tells of suppression: whom this mail suppressed, and who gets no mail right now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from relaygw.mail.state import OPEN, RecipientState
from relaygw.mail.suppression import Action, Listed, Suppression
from relaygw.operations.story.facts import Facts
from relaygw.policy.story import EventKind, Note, StoryEvent
from relaygw.store.queue_entry import DeliveryEntry, QueueEntry
from relaygw.store.store import Store


def suppressed_by(store: Store, entry: QueueEntry) -> Sequence[Suppression]:
    """Return what a mail has suppressed, as far as it still is."""
    addresses = [one.address for one in entry.recipients]
    known = store.suppressions.suppressed_of(addresses)
    return [one for found in known.values() for one in found if one.queue_id == entry.queue_id]


def listed_in(store: Store, entry: QueueEntry) -> Mapping[str, Listed]:
    """Return what holds for the recipients that wait, by their addresses."""
    found: dict[str, Listed] = {}
    for part in entry.deliveries:
        if part.state in OPEN:
            waiting = [
                one.address
                for one in entry.recipients
                if one.delivery_no == part.delivery_no and one.state is RecipientState.PENDING
            ]
            look = store.suppressions.listed_for
            found |= look(waiting, sender=entry.sender, stream=part.stream)
    return found


def suppression_events(facts: Facts) -> Iterator[StoryEvent]:
    """Yield whom this mail has suppressed."""
    for one in facts.suppressed:
        yield StoryEvent(
            kind=EventKind.SUPPRESSED,
            at_ms=one.created_at_ms,
            text=one.told,
            notes=(Note("lifted by", one.remedy),),
        )


def suppression_notes(facts: Facts, part: DeliveryEntry) -> Iterator[Note]:
    """Yield what happens to the recipients of a delivery that are suppressed now."""
    for one in facts.members(part):
        listed = facts.listed.get(one.address)
        if listed is not None and one.state is RecipientState.PENDING:
            does = "is not sent to" if listed.action is Action.BLOCK else "is sent to anyway"
            yield Note("suppressed", f"{one.address} {does}; {listed.sentence}")
