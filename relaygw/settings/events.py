"""Sections `events` and `suppression`: what providers report after their 250, and what follows.

The one says where reports are taken and by what they are believed, the other what happens to mail
for addresses that bounced or complained.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from relaygw.mail.suppression import Action, SuppressionRules
from relaygw.settings.addresses import Bind
from relaygw.settings.presets import MarkField, presets
from relaygw.settings.secrets import SecretRef
from relaygw.settings.section import Conflict, Section, checked, format_duration, parse_interval

if TYPE_CHECKING:
    from relaygw.settings.model import Settings
    from relaygw.settings.provider import Provider

_EXAMPLE = "127.0.0.1:8026"
_TOPIC = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_.-]{1,256}")


class Events(Section):
    """The listener for events of providers: it serves nothing else, and may be public."""

    bind: Bind | None = Field(default=None, examples=[_EXAMPLE])  # None: off


class ProviderEvents(Section):
    """What the events of one provider are believed by; its preset says what it needs."""

    secret: SecretRef | None = None  # a signing key, or user:password
    topic: (
        Annotated[
            str,
            checked(
                _TOPIC.fullmatch,
                "is not the ARN of a topic; write e.g. arn:aws:sns:eu-west-1:123456789012:events",
            ),
        ]
        | None
    ) = None

    def problem(self, preset: str | None) -> str | None:
        """Return what is missing or too much at a provider with this preset, None if it is fine."""
        known = {name: one.events for name, one in presets().items() if one.events}
        asks = known.get(preset or "")
        if asks is None:
            return f"needs a preset that reports events: {', '.join(sorted(known))}; remove it"
        for key, what in asks.items():
            if getattr(self, key) is None:
                return f"has no {key}; write events: {{{key}: …}} with {what}"
        if self.topic is not None and "topic" not in asks:
            return f"has a topic, which {preset} does not use; remove it"
        return None


def mark_field_of(provider: Provider) -> MarkField | None:
    """Return the field of a mail that the provider's events tell; None: it is not asked for any."""
    known = presets().get(provider.preset or "") if provider.events is not None else None
    return known.mark if known is not None else None


def events_conflicts(settings: Settings) -> Iterator[Conflict]:
    """Check that the listener has something to listen for."""
    has_events = any(one.events is not None for one in settings.providers.values())
    if settings.events.bind is not None and not has_events:
        yield Conflict(
            ("events", "bind"),
            f"{settings.events.bind} would listen for nobody; add events to a provider, or "
            "remove it",
        )


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
        """Return what the store and the worker go by."""
        return SuppressionRules(
            transactional=Action(self.transactional),
            promotional=Action(self.promotional),
            expire_ms=None if self.expire == math.inf else int(self.expire * 1000),
        )
