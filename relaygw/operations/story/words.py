"""How the story speaks of times, addresses and steps of a session."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from relaygw.mail.outcome import BEFORE_MAIL, Stage

_UNITS_S = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
_SHOWN = 5
_STAGES = {
    Stage.CONNECT: "while connecting",
    Stage.GREETING: "at its greeting",
    Stage.TLS: "at the TLS handshake",
    Stage.CONTENT: "after the whole message",
}


def counted(number: int, noun: str, nouns: str | None = None) -> str:
    """Return `1 message`, `3 messages`; `nouns` is a plural that is not regular."""
    return f"{number} {noun}" if number == 1 else f"{number} {nouns or noun + 's'}"


def span_words(duration_ms: int) -> str:
    """Return a duration in its largest whole unit: `5 minutes`."""
    seconds = max(0, duration_ms) // 1000
    for unit_s, unit in _UNITS_S:
        if seconds >= unit_s:
            return counted(seconds // unit_s, unit)
    return "less than a second"


def moment(at_ms: int) -> str:
    """Return a time to the second, UTC."""
    return f"{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def seen_from(at_ms: int, now_ms: int) -> str:
    """Return a time and how far it is from now."""
    if at_ms > now_ms:
        return f"{moment(at_ms)}, in {span_words(at_ms - now_ms)}"
    return f"{moment(at_ms)}, {span_words(now_ms - at_ms)} ago"


def some_of(addresses: Sequence[str]) -> str:
    """Return addresses on one line, the first few where they are many."""
    shown = ", ".join(addresses[:_SHOWN])
    more = len(addresses) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def stage_words(stage: Stage) -> str:
    """Return at which step of a session something was said."""
    return _STAGES.get(stage, f"at {stage.value}")


def is_before_mail(stage: Stage) -> bool:
    """True where no message was spoken of yet."""
    return stage in BEFORE_MAIL
