"""Section `events`: where reports of providers are taken, and by what they are believed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from relaygw.settings.addresses import Bind
from relaygw.settings.presets import MarkField, presets
from relaygw.settings.secrets import SecretRef
from relaygw.settings.section import Conflict, Section, checked

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
        """Return the key that is missing or too much with this preset, None if all is fine."""
        known = {
            name: known_preset.events
            for name, known_preset in presets().items()
            if known_preset.events
        }
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
    has_events = any(provider.events is not None for provider in settings.providers.values())
    if settings.events.bind is not None and not has_events:
        yield Conflict(
            ("events", "bind"),
            f"{settings.events.bind} would listen for nobody; add events to a provider, or "
            "remove it",
        )
