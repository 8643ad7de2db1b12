"""The model of one provider: an account at an upstream mail service."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from relaygw.settings.addresses import HeaderName, Host, Name, Pattern
from relaygw.settings.conflicts import provider_conflicts, raise_conflicts
from relaygw.settings.reply_row import ReplyRow
from relaygw.settings.secrets import SecretRef, UserName, read_user_name
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


class Oauth(Section):
    """Where to get access tokens for XOAUTH2: by refresh token, else by client credentials."""

    token_url: str = Field(examples=["https://oauth2.googleapis.com/token"])
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
    username: UserName | None = None  # as written: `read_credentials` resolves a reference
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
        raise_conflicts(provider_conflicts(self))
        return self

    def read_credentials(self) -> tuple[str, str] | None:
        """Return user name and password as they are now, or None without AUTH.

        Blocks as SecretRef.read does: call it in a thread. Raises SettingsError.
        """
        if self.username is None or self.password is None:
            return None
        return read_user_name(self.username), self.password.read()
