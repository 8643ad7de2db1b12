"""Section `suppression`: what happens to mail to those who bounced or complained."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from relaygw.mail.suppression import Action, SuppressionRules
from relaygw.settings.section import Section, format_duration, parse_interval

_Action = Literal["off", "warn", "block"]
_NEVER = "never"


def parse_expiry(value: object) -> float:
    """Read a duration above zero, or `never`."""
    if value == _NEVER or value == math.inf:
        return math.inf
    try:
        return parse_interval(value)
    except ValueError as error:
        raise ValueError(f"{error}; or never") from error


def _format_expiry(seconds: float) -> str:
    return _NEVER if seconds == math.inf else format_duration(seconds)


class Suppression(Section):
    """What happens to mail for an address that is suppressed, by the stream of its route."""

    transactional: _Action = "warn"
    promotional: _Action = "block"
    expire: Annotated[
        float, BeforeValidator(parse_expiry), PlainSerializer(_format_expiry, when_used="json")
    ] = Field(default=180 * 86400.0, examples=["180d"])

    def rules(self) -> SuppressionRules:
        """Return the rules for the store and the worker."""
        return SuppressionRules(
            transactional=Action(self.transactional),
            promotional=Action(self.promotional),
            expire_ms=None if self.expire == math.inf else int(self.expire * 1000),
        )
