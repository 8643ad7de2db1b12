"""The story of one message: what happened from its acceptance on, what comes next, what to do.

Addresses, subjects and replies in its texts come from strangers: whoever shows them escapes them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from relaygw.mail.clock import rfc3339, rfc3339_or_none
from relaygw.mail.words import fields


class EventKind(StrEnum):
    """What kind of thing happened; those of an attempt are named as in `mail.outcome`."""

    ACCEPTED = "accepted"
    CAPTURED = "captured"
    DELIVERED = "delivered"
    DEFERRED = "deferred"
    THROTTLED = "throttled"
    HELD = "held"
    IN_DOUBT = "in doubt"
    INTERRUPTED = "interrupted"
    BOUNCED = "bounced"
    EXPIRED = "expired"
    BLOCKED = "blocked"
    WARNED = "warned"
    SUPPRESSED = "suppressed"
    # told by a provider after its 250
    REPORTED = "reported"  # no last word
    ARRIVED = "arrived"
    RETURNED = "returned"
    COMPLAINED = "complained"
    UNSUBSCRIBED = "unsubscribed"
    OPERATOR = "operator"
    NOTICE = "notice"  # the sender was told, or somebody in its place


@dataclass(frozen=True, slots=True)
class Note:
    """A detail: a label of one word or two, and the text beside it."""

    label: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryEvent:
    """Something that happened; attempts without a charge that were alike are one event."""

    kind: EventKind
    at_ms: int  # the first one
    until_ms: int | None = None  # the last one, where there were several
    times: int = 1
    text: str
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """How a delivery that is not finished stands, and what comes next."""

    delivery_no: int
    route: str
    stream: str
    state: str  # a mail.state.DeliveryState
    recipients: tuple[str, ...]  # those who still wait
    text: str  # why it stands so
    next_at_ms: int | None  # when it is tried again; None: no timer runs
    notes: tuple[Note, ...] = ()
    is_in_the_way: bool = False  # something on this side has to change first


@dataclass(frozen=True, slots=True)
class Advice:
    """Something to do, and the command that does it, where there is one."""

    text: str
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """The whole story, as of `now_ms`."""

    queue_id: str
    sender: str  # "" is the null sender
    recipients: tuple[str, ...]
    subject: str
    state: str  # of the least finished delivery; "captured" when all it does is lie in the sandbox
    is_over: bool  # True: it has ended; a provider may still report of it
    headline: str  # the cause, and what comes next, in a sentence
    answer: str  # what a customer may be told
    events: tuple[StoryEvent, ...]  # oldest first
    outlooks: tuple[Outlook, ...]  # of deliveries that are not finished
    advice: tuple[Advice, ...]  # at least one
    now_ms: int


def as_object(story: Story) -> dict[str, Any]:
    """Return a story in the form of JSON; times as RFC 3339, UTC."""
    events = [
        {
            "kind": event.kind.value,
            "at": rfc3339(event.at_ms),
            "until": rfc3339_or_none(event.until_ms),
            **fields(event, "times", "text"),
            "notes": [asdict(note) for note in event.notes],
        }
        for event in story.events
    ]
    outlooks = [
        {
            **fields(outlook, "delivery_no", "route", "stream", "state"),
            "recipients": list(outlook.recipients),
            "text": outlook.text,
            "next_attempt_at": rfc3339_or_none(outlook.next_at_ms),
            "notes": [asdict(note) for note in outlook.notes],
        }
        for outlook in story.outlooks
    ]
    return {
        **fields(story, "queue_id", "state", "is_over", "headline", "answer", "sender"),
        "recipients": list(story.recipients),
        "subject": story.subject,
        "events": events,
        "next": outlooks,
        "what_to_do": [
            {"text": advice.text, "command": advice.command or None} for advice in story.advice
        ],
        "as_of": rfc3339(story.now_ms),
    }
