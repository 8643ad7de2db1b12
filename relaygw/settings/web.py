"""The section `web`: where pages and API are served, and who may see them.

ValueError texts continue a sentence that begins with the value.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from relaygw.settings.bind import Bind
from relaygw.settings.secret_url import is_url
from relaygw.settings.secrets import SecretRef
from relaygw.settings.section import Section
from relaygw.settings.units import Network
from relaygw.settings.user import PasswordHash, UserLogin

_BASE_PATH = re.compile(r"(?:/[A-Za-z0-9_~.-]+)+")
_DOTS = frozenset({".", ".."})

RoleName = Literal["viewer", "operator", "admin"]
"""What somebody may do: look; delete, tag and release as the lists allow; release to anyone."""


def _check_base_path(text: str) -> str:
    path = text.rstrip("/")
    if path and (_BASE_PATH.fullmatch(path) is None or _DOTS & set(path.split("/"))):
        raise ValueError("is not a path; write e.g. /mail, with letters, digits and - _ . ~ only")
    return path or "/"


def _check_url(text: str) -> str:
    if not is_url(text) or "?" in text or "#" in text or "@" in text:
        raise ValueError("is no http or https URL; write e.g. https://gw.example.com")
    return text.rstrip("/")


WebUrl = Annotated[str, AfterValidator(_check_url)]
"""What people open in a browser, without a `/` at its end."""


class WebUser(Section):
    """Who may log in to the pages, and use the API by HTTP basic."""

    name: UserLogin = Field(examples=["anna"])
    password_hash: PasswordHash
    role: RoleName = "viewer"


class WebToken(Section):
    """A program that may use the API: a bearer token, or a password beside its name."""

    name: UserLogin = Field(examples=["tests"])
    token: SecretRef
    role: RoleName = "viewer"


class Web(Section):
    """Health, API and pages."""

    bind: Bind = Bind("127.0.0.1", 8025)
    open: bool = False  # captured mail without login on any address, in sandbox mode only
    users: tuple[WebUser, ...] = ()
    tokens: tuple[WebToken, ...] = ()
    url: WebUrl | None = Field(default=None, examples=["https://gw.example.com"])  # for links
    base_path: Annotated[str, AfterValidator(_check_base_path)] = "/"
    hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "::1")
    proxies: tuple[Network, ...] = ()  # whose X-Forwarded-For and X-Forwarded-Proto are believed

    @property
    def has_logins(self) -> bool:
        """True when somebody is known here, so that nobody else gets in."""
        return bool(self.users or self.tokens)
