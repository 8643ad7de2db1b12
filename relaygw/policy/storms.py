"""Storms: when mail that is the same is too much, and what is told of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from relaygw.mail.words import counted
from relaygw.settings.guard import Storms
from relaygw.settings.units import format_duration

SLICES = 6
"""The window moves in so many steps."""
SAME_ID_MS = 600_000  # two messages with one Message-ID within this time are told of
MOST_TOLD = 20  # hosts


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """The same mail to one recipient, more than once within a window; as all fronts counted it."""

    messages: int
    held: int  # of them
    same_ids: int  # of them: they had the Message-ID of the one before
    host: str  # where the last one came from, see mail.mail_class
    script: str
    template: str
    recipient_domain: str
    first_id: str
    last_id: str
    first_ms: int


class Told(NamedTuple):
    """What an alert tells of the storms of a host."""

    key: str
    summary: str
    remedy: str
    since_ms: int


def slice_ms(window_s: float) -> int:
    """Return the length of a step of the window."""
    return max(1, int(window_s * 1000) // SLICES)


def storm_reason(storms: Storms) -> str:
    """Return why mail of a storm is held, as the end of a sentence."""
    times = counted(storms.same, "time")
    return f"the same mail went to the same recipient more than {times} within {_window(storms)}"


def told_of(found: Iterable[Storm], storms: Storms) -> Iterator[Told]:
    """Yield what is told of storms, the largest of each host; and of Message-IDs used twice."""
    largest: dict[str, Told] = {}
    for one in sorted(found, key=lambda one: (-one.messages, one.first_id)):
        is_storm = one.messages > storms.same
        if not is_storm and not one.same_ids:
            continue
        key = one.host if is_storm else f"{one.host} Message-ID"
        if key not in largest and one.host not in largest and len(largest) < MOST_TOLD:
            largest[key] = Told(key, *_words(one, storms, is_storm=is_storm), one.first_ms)
    yield from largest.values()


def _words(one: Storm, storms: Storms, *, is_storm: bool) -> tuple[str, str]:
    script = f", script {one.script}" if one.script else ""
    what = f"{one.template!r} from {one.host}{script} to a recipient at {one.recipient_domain}"
    if not is_storm:
        return (
            f"a Message-ID came again within minutes: {what} ({one.first_id} and {one.last_id})",
            f"relaygw queue explain {one.last_id} shows it; the client sent one mail twice, or "
            "gives several the same id. duplicates: once accepts exact copies once",
        )
    held = f", {one.held} of them held" if one.held else ""
    then = "storms.action: hold stops exact copies"
    if storms.action == "hold":
        then = (
            "none is held: they differ in links or codes, have more than 1 MiB, or came to "
            "several gateways at once"
        )
    if one.held:
        then = "relaygw queue list --reason storm shows what is held, release or delete it"
    return (
        f"the same mail came {counted(one.messages, 'time')} within {_window(storms)}{held}: "
        f"{what} (first {one.first_id}, last {one.last_id})",
        f"relaygw queue explain {one.last_id} shows it; stop the program that sends it; {then}",
    )


def _window(storms: Storms) -> str:
    return format_duration(storms.window)
