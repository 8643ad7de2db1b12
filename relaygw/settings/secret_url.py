"""URLs that whoever knows them may use: as written, or a reference to where one is kept.

Shown are the scheme and the host of one that is written as it is, and references as they are.
ValueError texts continue a sentence that begins with the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from relaygw.errors import SettingsError
from relaygw.settings.secrets import SecretRef


@dataclass(frozen=True, slots=True, repr=False)
class SecretUrl:
    """An http or https URL, in the configuration or by reference."""

    reference: SecretRef

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a URL or a secret reference; raises ValueError."""
        if isinstance(value, cls):
            return value
        if isinstance(value, str) and not value.lower().startswith(("http:", "https:")):
            try:
                return cls(SecretRef.parse(value))
            except ValueError:
                raise ValueError(
                    "is neither a URL nor a secret reference; write e.g. "
                    "https://hooks.example.com/… or env:ALERT_URL"
                ) from None
        if not isinstance(value, str) or not is_url(value):
            raise ValueError("is no http or https URL; write e.g. https://hooks.example.com/…")
        return cls(SecretRef("plain", value))

    def read(self, environ: Mapping[str, str] | None = None) -> str:
        """Return the URL as it is now; see SecretRef.read. Raises SettingsError."""
        url = self.reference.read(environ)
        if not is_url(url):
            raise SettingsError(f"{self}: holds no http or https URL; store one there")
        return url

    @property
    def host(self) -> str | None:
        """The host, if the URL stands in the configuration."""
        is_here = self.reference.kind == "plain"
        return urlsplit(self.reference.target).hostname if is_here else None

    def __str__(self) -> str:
        if self.reference.kind != "plain":
            return str(self.reference)
        parts = urlsplit(self.reference.target)
        host = parts.netloc.rpartition("@")[2]
        is_bare = parts.path in ("", "/") and not (parts.query or parts.username)
        return f"{parts.scheme}://{host}{parts.path if is_bare else '/***'}"

    def __repr__(self) -> str:
        return f"SecretUrl({str(self)!r})"

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.to_string_ser_schema(when_used="json")
        )


def is_url(text: str) -> bool:
    """True for an http or https URL with a host."""
    if not (text.isascii() and text.isprintable()) or " " in text:
        return False
    try:
        url = urlsplit(text)
        has_port = url.port != 0  # raises ValueError for what is no port
    except ValueError:
        return False
    return url.scheme in ("http", "https") and bool(url.hostname) and has_port
