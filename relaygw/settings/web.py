"""Sections `web` and `metrics`: what people and programs are shown, where, and who may see it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from relaygw.settings.addresses import Bind, HeaderName, Host
from relaygw.settings.listeners import HASH_EXAMPLE, PasswordHash, UserLogin
from relaygw.settings.secrets import SecretRef, is_url
from relaygw.settings.section import Conflict, Network, Section, checked, fits, repeated_names

if TYPE_CHECKING:
    from relaygw.settings.model import Settings

_BASE_PATH = re.compile(r"(?:/[A-Za-z0-9_~.-]+)+")
_IN_EVERY_MAIL = frozenset(
    ("to", "cc", "bcc", "from", "sender", "subject", "date", "received", "message-id")
)
WebHost = Annotated[
    str,
    checked(
        lambda text: fits(Host, text.removeprefix("[").removesuffix("]")),
        "is not a host name or IP address; write it alone, e.g. gw.example.com",
    ),
]
_DOTS = frozenset({".", ".."})
_METRICS_EXAMPLE = "127.0.0.1:9154"  # the port that exporters of Postfix's metrics use
RoleName = Literal["viewer", "operator", "admin"]
"""What somebody may do: look; delete, tag and release as the lists allow; release to anyone."""


def _check_base_path(text: str) -> str:
    path = text.rstrip("/")
    if path and (_BASE_PATH.fullmatch(path) is None or _DOTS & set(path.split("/"))):
        raise ValueError("is not a path; write e.g. /mail, with letters, digits and - _ . ~ only")
    return path or "/"


def _check_url(text: str) -> str:
    if not is_url(text) or "?" in text or "#" in text or "@" in text:
        raise ValueError("is not an http or https URL; write e.g. https://gw.example.com")
    return text.rstrip("/")


def _check_link_header(text: str) -> str:
    if text.lower() in _IN_EVERY_MAIL:
        raise ValueError("is in every mail; write the field that names the order, e.g. X-Order-Id")
    return text


WebUrl = Annotated[str, AfterValidator(_check_url)]
"""What people open in a browser, without a `/` at its end."""


LinkHeader = Annotated[HeaderName, AfterValidator(_check_link_header)]
"""The field that names the order which a mail is about: `/mail?order=...` leads to the mail."""


class WebUser(Section):
    """Who may log in to the pages, and use the API by HTTP basic."""

    name: UserLogin = Field(examples=["anna"])
    password_hash: PasswordHash = Field(examples=[HASH_EXAMPLE])
    role: RoleName = "viewer"


MIN_TOKEN_LENGTH = 20


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
    hosts: tuple[WebHost, ...] = ("localhost", "127.0.0.1", "::1")
    link_header: LinkHeader | None = Field(default=None, examples=["X-Order-Id"])
    proxies: tuple[Network, ...] = ()  # whose X-Forwarded-For and X-Forwarded-Proto are believed
    networks: tuple[Network, ...] = ()  # who else may not even log in; empty: everybody may

    @property
    def has_logins(self) -> bool:
        """True when somebody is known here, so that nobody else gets in."""
        return bool(self.users or self.tokens)


class Metrics(Section):
    """Where metrics are served beside the pages."""

    bind: Bind | None = Field(default=None, examples=[_METRICS_EXAMPLE])  # None: with the pages


def web_conflicts(settings: Settings) -> Iterator[Conflict]:
    """Check who may see captured mail, and that each name is one user or one token."""
    web = settings.web
    if web.open and settings.mode != "sandbox":
        yield Conflict(
            ("web", "open"),
            f"shows captured mail to everyone in mode {settings.mode}; only mode sandbox "
            "may, remove it",
        )
    elif web.open and web.has_logins:
        yield Conflict(
            ("web", "open"),
            "lets everyone in, but there are web.users or web.tokens; remove one of the two",
        )
    if settings.mode == "sandbox" and not (web.bind.is_loopback or web.open or web.has_logins):
        yield Conflict(
            ("web", "bind"),
            f"{web.bind} would show captured mail to the network without a login; add web.users, "
            "or write 127.0.0.1:8025, or web.open: true if everyone there may read it",
        )
    named = [(("web", "users", n, "name"), user.name) for n, user in enumerate(web.users)]
    named += [(("web", "tokens", n, "name"), token.name) for n, token in enumerate(web.tokens)]
    yield from repeated_names(named, "user or token")  # the audit trail tells who by name alone
    for number, network in enumerate(web.proxies):
        if network.prefixlen == 0:
            yield Conflict(
                ("web", "proxies", number),
                f"{network} trusts everyone to name the client; list only your reverse proxies",
            )
    for number, network in enumerate(web.networks):
        if network.prefixlen == 0:
            yield Conflict(
                ("web", "networks", number),
                f"{network} is everybody; list the networks of those who use the pages and the "
                "API, or remove web.networks",
            )


def metrics_conflicts(settings: Settings) -> Iterator[Conflict]:
    """Check that the address is not that of the pages."""
    bind = settings.metrics.bind
    if bind is not None and bind.port and bind == settings.web.bind:
        yield Conflict(
            ("metrics", "bind"),
            f"{bind} is web.bind, which serves /metrics as well; remove it, or write "
            f"{_METRICS_EXAMPLE}",
        )
