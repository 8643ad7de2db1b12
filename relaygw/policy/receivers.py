"""How receivers of webhooks do, and what of it somebody has to look at."""

from __future__ import annotations

from dataclasses import dataclass

from relaygw.mail.clock import DAY_MS
from relaygw.mail.words import counted

MOST_COUNTED = 100_000
"""Events that wait are counted so far and no further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """How a receiver does."""

    endpoint: str
    label: str | None  # its name and URL for people, masked; None: no instance has seen it
    failures: int  # one after the other
    next_at_ms: int  # when it is tried again, where it failed
    failing_since_ms: int | None
    paused_at_ms: int | None  # it failed for so long that it is hardly tried any more
    disabled_at_ms: int | None  # it said that it is gone, and is not tried
    taken_at_ms: int | None  # when it took something last
    last_error: str | None
    dropped: int
    dropped_at_ms: int | None
    waiting: int  # events, MOST_COUNTED at most
    is_more_waiting: bool  # than were counted
    oldest_at_ms: int | None  # since when the oldest event waits

    @property
    def state(self) -> str:
        """How it does, in a word."""
        if self.disabled_at_ms is not None:
            return "disabled"
        if self.paused_at_ms is not None:
            return "paused"
        return "failing" if self.failures else "ok"

    @property
    def waiting_words(self) -> str:
        """How many events wait."""
        more = "more than " if self.is_more_waiting else ""
        return more + counted(self.waiting, "event waits", "events wait", form=",")


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a receiver; `is_told`: by an alert, too."""

    summary: str
    remedy: str
    since_ms: int | None
    is_told: bool = True


def trouble_of(name: str, endpoint: Endpoint, *, now_ms: int) -> Trouble | None:
    """Return the trouble of a receiver, None when there is none."""
    who, resume = f"webhook {name}", f"relaygw webhooks resume {name} tries now"
    said, waits = endpoint.last_error or "it does not answer", endpoint.waiting_words
    oldest_ms = now_ms if endpoint.oldest_at_ms is None else endpoint.oldest_at_ms
    match endpoint.state:
        case "disabled":
            what = f"{who} is gone and gets nothing any more: {said}; {waits}"
            return Trouble(what, f"remove it, or {resume}", endpoint.disabled_at_ms)
        case "paused":
            what = f"{who} has failed for more than a day and is tried hourly: {said}; {waits}"
            return Trouble(what, f"make it answer 200; {resume}", endpoint.failing_since_ms)
        case "failing":
            what = f"{who} fails, and is tried again: {said}; {waits}"
            return Trouble(what, resume, endpoint.failing_since_ms, is_told=False)
    if now_ms - oldest_ms >= DAY_MS:
        what = f"{who} gets nothing, the oldest event waits for more than a day; {waits}"
        return Trouble(what, "start a web role, which sends them: relaygw serve", oldest_ms)
    return None
