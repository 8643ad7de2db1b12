"""What became of a queued message, as its page tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from relaygw.mail.state import RecipientState
from relaygw.policy.story import Story
from relaygw.store.protocol import QueueEntry
from relaygw.web import words

_TONES = {
    RecipientState.PENDING: "waiting",
    RecipientState.DELIVERED: "sent",
    RecipientState.BOUNCED: "failed",
    RecipientState.EXPIRED: "failed",
    RecipientState.CAPTURED: "captured",
    RecipientState.BLOCKED: "failed",
    RecipientState.CANCELLED: "captured",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """One recipient, and what was said of it last."""

    address: str
    original: str  # "" when it is the same
    state: str
    tone: str
    provider: str
    reply: str
    at: str
    route: str
    attempts: int


def fates(entry: QueueEntry, *, now: int) -> list[Fate]:
    """Return the recipients of a message, those who wait first."""
    routes = {part.delivery_no: part.route for part in entry.deliveries}
    ordered = sorted(entry.recipients, key=lambda one: one.state is not RecipientState.PENDING)
    return [
        Fate(
            address=one.address,
            original=one.original if one.original and one.original != one.address else "",
            state=one.state.value,
            tone=_TONES[one.state],
            provider=one.provider or "",
            reply=one.reply or "",
            at=words.age(one.changed_at_ms, now),
            route=routes.get(one.delivery_no, ""),
            attempts=one.attempts,
        )
        for one in ordered
    ]


def story_context(story: Story | None, *, now: int) -> dict[str, Any]:
    """Return the story of a message for its page; None: it has gone just now."""
    return {
        "story": story,
        "iso_time": words.iso_time,
        "exact_time": words.exact_time,
        "clock_time": lambda at_ms: words.clock_time(at_ms, now),
        "until": lambda at_ms: words.until(at_ms, now),
    }
