"""Section `guard`: from when on a source of mail is taken for compromised."""

from __future__ import annotations

import re
from datetime import date
from typing import Literal, Self

from pydantic import Field

from relaygw.settings.section import Count, Section, Share, Written

_MAX_DAYS = 366
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Days(Written):
    """A day, or days from one to another: `2026-11-27`, `2026-11-27..2026-11-30`."""

    __slots__ = ("first", "last")

    def __init__(self, first: date, last: date) -> None:
        self.first = first
        self.last = last

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read the written form; raises ValueError."""
        first, _, last = str(value).partition("..")
        try:
            days = cls(_day(first), _day(last or first))
        except ValueError:
            raise ValueError(
                "is not a day, nor days; write e.g. 2026-11-27 or 2026-11-27..2026-11-30"
            ) from None
        if not 0 <= (days.last - days.first).days < _MAX_DAYS:
            raise ValueError(f"must be 1 to {_MAX_DAYS} days, the first of them in front")
        return days

    def __contains__(self, day: object) -> bool:
        return isinstance(day, date) and self.first <= day <= self.last

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Days) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}..{self.last}"


def _day(text: str) -> date:
    if not _DAY.fullmatch(text.strip()):  # Python reads weeks, too
        raise ValueError(text)
    return date.fromisoformat(text.strip())


class Guard(Section):
    """What a compromised host does: see docs/guard.md."""

    action: Literal["off", "alert", "hold"] = "alert"
    new_per_hour: Count = 30  # mails an hour of a script or template that is new
    source_per_hour: Count = 500  # mails an hour of any source, as long as it has no history
    refused_share: Share = 0.2  # of the recipients of a source
    quiet: tuple[Days, ...] = Field(default=(), examples=[["2026-11-27"]])
