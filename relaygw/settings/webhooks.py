"""Section `webhooks`: which programs are told what becomes of mail, and how they know us."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import Field

from relaygw.errors import SettingsError
from relaygw.mail.verdict import Told
from relaygw.settings.addresses import Name
from relaygw.settings.secrets import SecretRef, SecretUrl
from relaygw.settings.section import Conflict, Section, repeated_names

if TYPE_CHECKING:
    from relaygw.settings.model import Settings

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
    return "is not https, and events name recipients; write https://, or a URL of this host"


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
    return {
        _webhook_name(receiver, number): receiver
        for number, receiver in enumerate(settings.webhooks)
    }


def webhook_conflicts(settings: Settings) -> Iterator[Conflict]:
    """Check that receivers have different names and URLs."""
    names = [
        (("webhooks", n, "name"), _webhook_name(receiver, n))
        for n, receiver in enumerate(settings.webhooks)
    ]
    yield from repeated_names(names, "one")
    seen: set[str] = set()
    for number, webhook in enumerate(settings.webhooks):
        if webhook.endpoint in seen:
            problem = "is the URL of an earlier one; put all it is told of into one entry"
            yield Conflict(("webhooks", number, "url"), problem)
        seen.add(webhook.endpoint)
