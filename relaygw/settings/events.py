"""Events of mail: what providers report after their 250, what follows, and who else is told.

The section `events` says where reports are taken and by what they are believed, `suppression` what
happens to mail for addresses that bounced or complained, `webhooks` which programs are told what
becomes of mail.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, PlainSerializer

from relaygw.errors import SettingsError
from relaygw.mail.suppression import Action, SuppressionRules
from relaygw.mail.verdict import Told
from relaygw.settings.addresses import Bind, Name
from relaygw.settings.presets import MarkField, presets
from relaygw.settings.secrets import SecretRef, SecretUrl
from relaygw.settings.section import (
    Conflict,
    Section,
    checked,
    format_duration,
    parse_interval,
    repeated_names,
)

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


_PREFIX = "whsec_"
_LEAST_KEY_BYTES, _MOST_KEY_BYTES = 24, 64  # Standard Webhooks 1.0.0, "Signature scheme"
_MAKE_ONE = "make one: printf 'whsec_%s\\n' \"$(openssl rand -base64 32)\""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Webhook(Section):
    """One receiver, and what it is told of."""

    name: Name | None = None  # in logs and commands; None: its place in the list
    url: SecretUrl = Field(examples=["https://shop.example.com/mail-events.php"])
    secret: SecretRef = Field(examples=["env:WEBHOOK_SECRET"])
    on: tuple[Told, ...] = ()  # empty: all
    allow_private: bool = False  # its host may have an address inside this network

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Check what can be seen of the URL without reading any secret."""
        if self.url.reference.kind == "plain":
            problem = _url_problem(self.url.reference.target)
            if problem:
                yield "url", problem

    @property
    def endpoint(self) -> str:
        """Its id in the queue: another URL, or another reference to one, is another receiver."""
        where = self.url.reference
        return hashlib.sha256(f"{where.kind}:{where.target}".encode()).hexdigest()[:16]

    def read_url(self) -> str:
        """Return the URL as it is now; blocks. Raises SettingsError."""
        url = self.url.read()
        problem = _url_problem(url)
        if problem:
            raise SettingsError(f"{self.url}: {problem}")
        return url

    def read_keys(self) -> list[str]:
        """Return the secrets, the new one first while they change; blocks. Raises SettingsError."""
        keys = self.secret.read().split()
        if not keys or not all(map(_is_key, keys)):
            raise SettingsError(
                f"{self.secret}: is not whsec_ with {_LEAST_KEY_BYTES} to {_MOST_KEY_BYTES} bytes "
                f"as base64; {_MAKE_ONE}"
            )
        return keys


def _url_problem(url: str) -> str | None:
    """Return why events may not go to a URL, None if they may."""
    parts = urlsplit(url)
    if parts.scheme == "https" or parts.hostname in _LOOPBACK:
        return None
    return "is not https, and events name recipients; only a URL of this host may be http"


def _is_key(text: str) -> bool:
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return False
    return text.startswith(_PREFIX) and _LEAST_KEY_BYTES <= len(key) <= _MOST_KEY_BYTES


def _webhook_name(webhook: Webhook, number: int) -> str:
    """Return the name of the entry at a place of the list, counted from 0."""
    return webhook.name or f"webhook-{number + 1}"


def named_webhooks(settings: Settings) -> dict[str, Webhook]:
    """Return all receivers by their names."""
    return {_webhook_name(one, number): one for number, one in enumerate(settings.webhooks)}


def webhook_conflicts(settings: Settings) -> Iterator[Conflict]:
    """Check that receivers have different names and URLs."""
    names = [
        (("webhooks", n, "name"), _webhook_name(one, n)) for n, one in enumerate(settings.webhooks)
    ]
    yield from repeated_names(names, "one")
    seen: set[str] = set()
    for number, one in enumerate(settings.webhooks):
        if one.endpoint in seen:
            problem = "is the URL of an earlier one; put all it is told of into one entry"
            yield Conflict(("webhooks", number, "url"), problem)
        seen.add(one.endpoint)
