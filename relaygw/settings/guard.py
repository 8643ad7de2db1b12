"""What is watched for: sources, silence, storms, content; and what people are told regularly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field

from relaygw.mail.finding import is_iban
from relaygw.settings.addresses import Address
from relaygw.settings.secrets import SecretUrl
from relaygw.settings.section import Count, Section, Written
from relaygw.settings.units import Interval, Rate, Share

if TYPE_CHECKING:
    from relaygw.settings.model import Settings

_DAY_S = 86_400.0
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


class Silence(Section):
    """Mail that stops coming."""

    enabled: bool = True


class Expected(Section):
    """Mail that has to come each day."""

    subject: str = Field(min_length=1, max_length=200)  # `*` stands for any text
    at_least: Rate = Field(examples=["5/d"])

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Check that it is a number a day."""
        if self.at_least.period_s != _DAY_S or self.at_least.amount % 1:
            yield "at_least", f"{self.at_least} is not a number a day; write e.g. 5/d"


class Storms(Section):
    """The same mail to the same recipient, over and over."""

    same: Count = 5  # so many are no storm
    window: Interval = 3600.0
    action: Literal["off", "alert", "hold"] = "alert"

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Check that what has to be remembered is bounded."""
        if self.window > _DAY_S:
            yield "window", "is longer than a day; write e.g. 1h"


_OnMatch = Literal["off", "warn", "hold"]


def _parse_iban(text: str) -> str:
    iban = "".join(text.split()).upper()
    if not is_iban(iban):
        raise ValueError("is not an IBAN; write e.g. DE89 3704 0044 0532 0130 00")
    return iban


_Iban = Annotated[str, AfterValidator(_parse_iban)]


class ContentCheck(Section):
    """What happens to mail with card numbers, passwords and the like, by its route's stream."""

    transactional: _OnMatch = "off"
    promotional: _OnMatch = "off"
    # of the shop itself, e.g. for advance payment: no find
    own_ibans: tuple[_Iban, ...] = Field(default=(), examples=[["DE89 3704 0044 0532 0130 00"]])

    @property
    def is_on(self) -> bool:
        """True where mail of a stream is looked at."""
        return (self.transactional, self.promotional) != ("off", "off")


class Digest(Section):
    """A regular report: by mail, or to a webhook."""

    to: Address | None = Field(default=None, examples=["ops@example.com"])
    sender: Address | None = None  # of that mail: an address that the providers accept
    webhook: SecretUrl | None = Field(default=None, examples=["env:DIGEST_URL"])
    every: Interval = _DAY_S

    @property
    def is_on(self) -> bool:
        """True where somebody gets it."""
        return self.to is not None or self.webhook is not None

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Check that it comes daily or weekly, with what goes with its kind."""
        if self.every not in (_DAY_S, 7 * _DAY_S):
            yield "every", "is neither 1d nor 7d; write one of them"
        if self.sender is not None and self.to is None:
            yield "sender", "is for a digest by mail; add to, or remove it"


def counts_sources(settings: Settings) -> bool:
    """True where something needs to know who sends what."""
    return (
        settings.guard.action != "off"
        or settings.silence.enabled
        or bool(settings.expect)
        or settings.storms.action != "off"
        or settings.digest.to is not None
        or settings.digest.webhook is not None
    )
