"""What operators did with a message, as the audit trail has it."""

from __future__ import annotations

from collections.abc import Iterator

from relaygw.operations.story.facts import Facts
from relaygw.operations.story.words import counted
from relaygw.policy.story import EventKind, Note, StoryEvent
from relaygw.store.protocol import AuditEntry

_BY_ITSELF = "queue.reroute"
_DONE = {
    "queue.retry": "made it due at once",
    "queue.hold": "held it",
    "queue.release": "let it go",
    "queue.delete": "put it into the trash",
    "queue.undelete": "took it out of the trash",
    _BY_ITSELF: "let it take the route of now, since its own is not configured any more",
    "queue.move": "moved it to another provider",
    "queue.expire": "gave it up",
    "queue.import": "brought it in from a file",
    "sandbox.release": "released it from the sandbox",
    "sandbox.delete": "deleted it from the sandbox",
}


def action_events(facts: Facts) -> Iterator[StoryEvent]:
    """Yield an event for each thing that an operator did."""
    for action in facts.record.actions:
        done = _DONE.get(action.action, f"did {action.action}")
        who = action.actor if action.action == _BY_ITSELF else f"operator {action.actor}"
        yield StoryEvent(
            kind=EventKind.OPERATOR,
            at_ms=action.at_ms,
            text=f"{who} {done}",
            notes=tuple(_notes(action)),
        )


def _notes(action: AuditEntry) -> Iterator[Note]:
    others = len(action.target.split()) - 1
    if others:
        yield Note("with", counted(others, "other message"))
    if action.detail:
        yield Note("detail", action.detail)
