"""When mail that has a rhythm is silent. Pure; docs/guard.md says what it promises.

A **kind** of mail is what has one sender domain, template and stream, from whatever host, user or
script: hosts come and go. All mail of a domain and stream is a kind, too. Its **rhythm** is how
long it usually pauses, for each hour of the week.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from relaygw.mail.clock import HOUR_MS
from relaygw.policy.rhythm import BACK, LEAST_MS, LOOK_MS, MailKind, Rhythm

ENDED_MS = 14 * 86_400_000  # what is silent for longer was ended on purpose
MOST_TOLD = 20  # kinds at a time; the others are told of in one line
_OFTEN_MS = 6 * HOUR_MS


@dataclass(frozen=True, slots=True)
class LastMail:
    """What is known of a kind at this moment."""

    first_ms: int
    last_ms: int
    messages: int


@dataclass(frozen=True, slots=True)
class Silent:
    """A kind of mail that has stopped coming."""

    kind: MailKind
    last_ms: int
    usual_ms: int  # the longest pause that is usual at these hours
    messages: int  # that had come by then

    def lasts(self, seen: LastMail) -> bool:
        """True when one or two messages came of what comes often: that is not its rhythm."""
        return self.usual_ms < _OFTEN_MS and 0 <= seen.messages - self.messages < BACK


def silent_kinds(
    rhythms: Mapping[MailKind, Rhythm],
    last: Mapping[MailKind, LastMail],
    *,
    now_ms: int,
    up_since_ms: int,
    told: Mapping[str, Silent | None],
) -> list[Silent]:
    """Return the kinds that should have come and did not.

    `up_since_ms`: before that the gateway took no mail. `told`: what is told of already, by key,
    as it was found the last time. Where all of a domain is silent, only that is new.
    """
    found = list(_silent(rhythms, last, now_ms, up_since_ms, told))
    whole = {silent.kind for silent in found if silent.kind.template is None}
    return [
        silent
        for silent in found
        if silent.kind in whole or silent.kind.whole not in whole or silent.kind.key in told
    ]


def _silent(
    rhythms: Mapping[MailKind, Rhythm],
    last: Mapping[MailKind, LastMail],
    now_ms: int,
    up_since_ms: int,
    told: Mapping[str, Silent | None],
) -> Iterator[Silent]:
    for kind, rhythm in rhythms.items():
        seen, before = last.get(kind), told.get(kind.key) if told else None
        if seen is None:
            continue
        usual_ms = None
        if now_ms - seen.last_ms >= LEAST_MS - LOOK_MS:
            since_ms = max(seen.last_ms, up_since_ms)
            usual_ms = rhythm.broken(since_ms, now_ms)
            if usual_ms is not None and rhythm.broken(since_ms, now_ms - ENDED_MS) is not None:
                continue
        if usual_ms is not None:
            yield Silent(kind, seen.last_ms, usual_ms, seen.messages)
        elif before is not None and before.lasts(seen):
            yield before
