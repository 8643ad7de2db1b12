"""Ways of logging in that a service ends: which providers they concern, and in what words. Pure.

presets.yaml has the dates. A provider without a preset is known by the host of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from relaygw.settings.model import Settings
from relaygw.settings.presets import Ending, Preset, presets
from relaygw.settings.provider import Provider


@dataclass(frozen=True, slots=True)
class EndingLogin:
    """A provider that is logged in to in a way that ends."""

    provider: str
    ending: Ending
    delivered: int | None = None  # recipients within the last day, where that is known

    @property
    def remedy(self) -> str:
        """What to do."""
        return self.ending.remedy

    def words(self, now_ms: int) -> str:
        """Return the sentence: which login ends, when, and how much mail that concerns."""
        today = datetime.fromtimestamp(now_ms / 1000, UTC).date()
        day = self.ending.at
        when = f"{'on' if today < day else 'since'} {day.day} {day:%B %Y}"
        count = self.delivered
        of_day = "" if count is None else f"; {count} were delivered by it within a day"
        return f"provider {self.provider} logs in by password: {when} {self.ending.text}{of_day}"


def ending_logins(settings: Settings) -> Iterator[EndingLogin]:
    """Yield the providers that are logged in to with a password, where passwords end."""
    for name, provider in settings.providers.items():
        preset = _preset_of(provider)
        if preset is not None and preset.password_ends is not None and _has_password(provider):
            yield EndingLogin(name, preset.password_ends)


def _has_password(provider: Provider) -> bool:
    return provider.has_credentials and not provider.uses_xoauth2


def _preset_of(provider: Provider) -> Preset | None:
    known = presets()
    if provider.preset is not None:
        return known.get(provider.preset)
    host = provider.host.lower().rstrip(".")
    return next((preset for preset in known.values() if preset.keys.get("host") == host), None)
