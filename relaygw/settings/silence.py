"""Sections `silence` and `expect`: mail that stops coming, or does not come."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from relaygw.settings.section import DAY_S, Rate, Section


class Silence(Section):
    """Mail that stops coming."""

    enabled: bool = True


class Expected(Section):
    """Mail that has to come each day."""

    subject: str = Field(min_length=1, max_length=200)  # `*` stands for any text
    at_least: Rate = Field(examples=["5/d"])

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Check that it is a number a day."""
        if self.at_least.period_s != DAY_S or self.at_least.amount % 1:
            yield "at_least", f"{self.at_least} is not a number a day; write e.g. 5/d"
