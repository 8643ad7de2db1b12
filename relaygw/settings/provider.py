"""The model of one provider: an account at an upstream mail service."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from relaygw.settings.addresses import HeaderName, Host, Name, Pattern, is_loopback_host
from relaygw.settings.auth_conflicts import auth_conflicts
from relaygw.settings.conflicts import raise_conflicts
from relaygw.settings.reply_row import ReplyRow
from relaygw.settings.secrets import SecretRef, UserName
from relaygw.settings.section import Count, Port, Section
from relaygw.settings.units import Interval, Pace, Size

Quota = Annotated[int, Field(strict=True, ge=1, le=1_000_000_000)]
Counted = Literal["messages", "recipients"]
"""What a provider counts against a limit."""


class TlsPolicy(StrEnum):
    """How a provider's connection is protected."""

    REQUIRED = "required"  # STARTTLS, certificate verified
    IMPLICIT = "implicit"  # TLS from the first byte, certificate verified
    OPPORTUNISTIC = "opportunistic"  # STARTTLS if offered, certificate not verified
    NONE = "none"


class Timeouts(Section):
    """How long the worker waits for a provider, by stage (RFC 5321 section 4.5.3.2)."""

    connect: Interval = 30.0
    command: Interval = 300.0
    final_reply: Interval = 600.0


def _check_token_url(text: str) -> str:
    if not _is_token_url(text):
        raise ValueError("is no https URL; write e.g. https://oauth2.googleapis.com/token")
    return text


def _is_token_url(text: str) -> bool:
    if not (text.isascii() and text.isprintable()) or " " in text:
        return False
    try:
        url = urlsplit(text)
        has_port = url.port != 0  # raises ValueError for what is no port
    except ValueError:
        return False
    host = url.hostname or ""
    is_private = url.scheme == "https" or (url.scheme == "http" and is_loopback_host(host))
    return bool(host) and has_port and is_private and not (url.username or url.fragment)


TokenUrl = Annotated[str, AfterValidator(_check_token_url)]
"""An https URL, or http on this machine: secrets are sent there."""


class Oauth(Section):
    """Where to get access tokens for XOAUTH2: by refresh token, else by client credentials."""

    token_url: TokenUrl = Field(examples=["https://oauth2.googleapis.com/token"])
    client_id: UserName
    client_secret: SecretRef | None = None
    refresh_token: SecretRef | None = None
    scope: str | None = Field(default=None, min_length=1)


class Provider(Section):
    """One account at an upstream mail service."""

    preset: str | None = None  # the loader has filled in what it says
    region: str | None = None
    variant: str | None = None
    host: Host = Field(examples=["smtp.example.com"])
    port: Port = 587
    tls: TlsPolicy = TlsPolicy.REQUIRED
    tls_ca: str | None = Field(default=None, min_length=1)  # PEM file; default: the system's
    username: UserName | None = None  # as written: `parse_user_name` tells a reference
    password: SecretRef | None = None
    auth: Literal["auto", "plain", "login", "cram-md5", "xoauth2"] = "auto"
    oauth: Oauth | None = None
    auth_without_tls: bool = False
    account: Name | None = None  # providers on one account share its limits; default: its own
    rate: Pace | None = None
    rate_counts: Counted = "messages"
    daily_quota: Quota | None = None  # in any 24 hours
    quota_counts: Counted = "messages"
    max_connections: Count = 5
    max_messages_per_connection: Count = 100
    max_recipients: Count = 100  # recipients in one transaction
    max_message_size: Size | None = Field(default=None, ge=1)  # besides what EHLO says
    senders: tuple[Pattern, ...] = ()  # what it may send as; empty: anything
    headers: dict[HeaderName, str] = {}  # added where the mail has none of that name
    send_source: bool = False  # tell the next relaygw which user and script a mail is from
    chain_transactions: bool = False  # the next envelope in one group with content (RFC 2920 3.1)
    idle_close: Interval = 45.0  # an idle connection is closed after this
    timeouts: Timeouts = Timeouts()
    replies: tuple[ReplyRow, ...] = ()  # own rows of the reply catalogue, before all others

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        raise_conflicts(auth_conflicts(self))
        return self

    @property
    def uses_xoauth2(self) -> bool:
        """True when it is logged in to by access token: `auto` is that, too, where oauth is set."""
        return self.auth == "xoauth2" or (self.auth == "auto" and self.oauth is not None)

    @property
    def has_credentials(self) -> bool:
        """True when there is something to log in with."""
        return (self.oauth if self.uses_xoauth2 else self.password) is not None
