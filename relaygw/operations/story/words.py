"""How the story speaks of times, addresses and steps of a session."""

from __future__ import annotations

from collections.abc import Sequence

from relaygw.mail.clock import utc_text
from relaygw.mail.outcome import BEFORE_MAIL, Stage
from relaygw.mail.words import span

_SHOWN = 5
_STAGES = {
    Stage.CONNECT: "while connecting",
    Stage.GREETING: "at its greeting",
    Stage.TLS: "at the TLS handshake",
    Stage.CONTENT: "after the whole message",
}


def seen_from(at_ms: int, now_ms: int) -> str:
    """Return a time and how far it is from now."""
    if at_ms > now_ms:
        return f"{utc_text(at_ms)}, in {span(at_ms - now_ms)}"
    return f"{utc_text(at_ms)}, {span(now_ms - at_ms)} ago"


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
