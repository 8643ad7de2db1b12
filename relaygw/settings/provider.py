"""The model of one provider: an account at an upstream mail service."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field

from relaygw.settings.addresses import HeaderName, Host, Name, Pattern, is_loopback_host
from relaygw.settings.reply_row import ReplyRow
from relaygw.settings.secrets import SecretRef, UserName, is_url
from relaygw.settings.section import Conflict, Count, Port, Section, checked
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


def _is_token_url(text: str) -> bool:
    if not is_url(text):
        return False
    url = urlsplit(text)
    is_private = url.scheme == "https" or is_loopback_host(url.hostname or "")
    return is_private and not (url.username or url.fragment)


TokenUrl = Annotated[
    str,
    checked(_is_token_url, "is no https URL; write e.g. https://oauth2.googleapis.com/token"),
]
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

    def conflicts(self) -> Iterator[Conflict]:
        """Check that user name and secret come together, and never in clear over a network."""
        yield from self._oauth_conflicts()
        if self.username is not None and not self.has_credentials:
            if self.auth != "xoauth2" and self.oauth is None:  # else it is told already
                yield Conflict(("username",), "has no password beside it; set both or neither")
            return
        if self.username is None and self.password is not None:
            yield Conflict(("password",), "has no username beside it; set both or neither")
        is_clear = self.tls == "none" and not is_loopback_host(self.host)
        if self.has_credentials and is_clear and not self.auth_without_tls:
            secret = "access token" if self.uses_xoauth2 else "password"
            yield Conflict(
                ("tls",),
                f"none would send the {secret} to {self.host} in clear text; write "
                "tls: required, or auth_without_tls: true if the network is yours",
            )

    def _oauth_conflicts(self) -> Iterator[Conflict]:
        oauth = self.oauth
        if oauth is None:
            if self.auth == "xoauth2":
                yield Conflict(
                    ("auth",),
                    "xoauth2 needs to know where tokens come from; add the section oauth",
                )
            return
        if not self.uses_xoauth2:
            yield Conflict(
                ("oauth",),
                f"is of no use with auth: {self.auth}; write auth: xoauth2, or remove one of them",
            )
        if self.username is None:
            yield Conflict(
                ("oauth",), "has no username beside it; add the mailbox that the token is for"
            )
        if oauth.client_secret is None and oauth.refresh_token is None:
            yield Conflict(
                ("oauth",),
                "has neither client_secret nor refresh_token; add what your provider gave",
            )

    @property
    def uses_xoauth2(self) -> bool:
        """True when it is logged in to by access token: `auto` is that, too, where oauth is set."""
        return self.auth == "xoauth2" or (self.auth == "auto" and self.oauth is not None)

    @property
    def has_credentials(self) -> bool:
        """True when there is something to log in with."""
        return (self.oauth if self.uses_xoauth2 else self.password) is not None
