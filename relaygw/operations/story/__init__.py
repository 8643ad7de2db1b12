"""The story of one message, told from what the store and the settings know: it changes nothing.

`facts` are gathered first; the rest makes words of them and is pure. What an attempt's reply
means, and which way mail would go, is worked out with the present configuration.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from relaygw.mail.words import counted
from relaygw.operations.queue_actions import ACTIONS
from relaygw.operations.queue_object import shown_state
from relaygw.operations.story.events import acceptance, attempt_events, endings
from relaygw.operations.story.facts import Facts, Meanings, gather
from relaygw.operations.story.outlook import headline, last_advice, prospect
from relaygw.policy.story import EventKind, Note, Story, StoryEvent
from relaygw.settings.model import Settings
from relaygw.store.audit import AuditEntry
from relaygw.store.store import Store

_BY_ITSELF = "queue.reroute"
_DONE = {
    **{f"queue.{one.name}": one.told for one in ACTIONS.values()},
    _BY_ITSELF: "let it take the route of now, since its own is not configured any more",
    "queue.import": "brought it in from a file",
    "sandbox.release": "released it from the sandbox",
    "sandbox.delete": "deleted it from the sandbox",
}
_EXPLAINED = ("meaning", "remedy")


def tell_story(store: Store, settings: Settings, queue_id: str, *, now_ms: int) -> Story | None:
    """Return the story of a message, None if there is none of that id.

    Raises StoreUnavailable.
    """
    facts = gather(store, settings, queue_id, now_ms=now_ms)
    return None if facts is None else _story_of(facts)


def _story_of(facts: Facts) -> Story:
    meanings = Meanings(facts.settings)
    prospects = [prospect(facts, part, meanings) for part in facts.open_parts]
    later = [*_operator_events(facts), *attempt_events(facts, meanings)]
    later.sort(key=lambda event: event.at_ms)  # of one moment: first the cause
    advice = [step for one in prospects for step in one.advice] or last_advice(facts, meanings)
    entry = facts.entry
    return Story(
        queue_id=entry.queue_id,
        sender=entry.sender,
        recipients=tuple(one.address for one in entry.recipients),
        subject=entry.subject,
        state=shown_state(entry),
        is_over=not prospects,
        headline=headline(facts, prospects),
        events=(acceptance(facts), *endings(facts), *_without_repetition(later)),
        outlooks=tuple(one.outlook for one in prospects),
        advice=tuple(dict.fromkeys(advice)),
        now_ms=facts.now_ms,
    )


def _without_repetition(events: Sequence[StoryEvent]) -> Iterator[StoryEvent]:
    told: set[Note] = set()
    for event in events:
        notes = [note for note in event.notes if note.label not in _EXPLAINED or note not in told]
        told.update(event.notes)
        yield replace(event, notes=tuple(notes))


def _operator_events(facts: Facts) -> Iterator[StoryEvent]:
    for action in facts.record.actions:
        done = _DONE.get(action.action, f"did {action.action}")
        who = action.actor if action.action == _BY_ITSELF else f"operator {action.actor}"
        yield StoryEvent(
            kind=EventKind.OPERATOR,
            at_ms=action.at_ms,
            text=f"{who} {done}",
            notes=tuple(_audit_notes(action)),
        )


def _audit_notes(action: AuditEntry) -> Iterator[Note]:
    others = len(action.target.split()) - 1
    if others:
        yield Note("with", counted(others, "other message"))
    if action.detail:
        yield Note("detail", action.detail)
