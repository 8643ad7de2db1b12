"""The model of one provider: an account at an upstream mail service.

Its `replies` and the built-in catalogue have the same form. A row that could break a promise is
refused here: only a 5xx from MAIL on may bounce, and only a refusal (4xx or 5xx) has a row at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from relaygw.mail.outcome import BEFORE_MAIL, Stage
from relaygw.settings.addresses import HeaderName, Host, Name, Pattern, is_loopback_host
from relaygw.settings.events import ProviderEvents
from relaygw.settings.idempotency import Idempotency, KeyHeader
from relaygw.settings.presets import key_header_of
from relaygw.settings.secrets import PemRef, SecretRef, UserName, is_url
from relaygw.settings.section import Count, Interval, Port, Rate, Section, Size, checked

StageName = Literal[
    "connect", "greeting", "ehlo", "starttls", "tls", "auth", "mail", "rcpt", "data", "content"
]
"""`content` is the reply to the final dot."""

STAGES: dict[StageName, Stage] = {name: Stage[name.upper()] for name in get_args(StageName)}
_SCOPES = {
    "retry": ("recipient", "message", "credential", "provider"),
    "throttle": ("credential", "provider"),
    "hold": ("sender domain", "credential", "provider"),
    "bounce": ("recipient", "message"),
    "doubt": ("message",),
}
_OF_A_MESSAGE = ("recipient", "message", "sender domain")
_ODD_ACCEPTED = frozenset(range(252, 300))  # at RCPT: RFC 5321 section 4.3.2 knows 250 and 251


def _check_expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is not a regular expression ({error}); correct it") from error
    return text


Expression = Annotated[str, AfterValidator(_check_expression)]


class ReplyRow(Section):
    """Conditions, all of which must hold (an empty one always does), and the meaning."""

    stages: tuple[StageName, ...] = ()  # empty: all; with verdict bounce, those from MAIL on
    code: Expression = ""  # the whole code: "421", "5.."
    status: Expression = ""  # the whole enhanced status; a reply without one does not match
    text: Expression = ""  # found anywhere in the text without addresses, case ignored
    verdict: Literal["retry", "throttle", "hold", "bounce", "doubt"]
    scope: Literal["recipient", "message", "sender domain", "credential", "provider"] | None = None
    limit: Literal["rate", "connections"] | None = None  # of a throttle: what was exceeded
    wait: tuple[Interval, ...] = ()  # before the next try, the last one again and again
    explanation: str = ""
    remedy: str = ""
    source: str = ""  # where the text is documented

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Check that it breaks no promise."""
        early = next((name for name in self.stages if STAGES[name] in BEFORE_MAIL), None)
        yield from _condition_conflicts(self, early)
        yield from _meaning_conflicts(self, early)


def _condition_conflicts(row: ReplyRow, early: StageName | None) -> Iterator[tuple[str, str]]:
    if not (row.code or row.status or row.text):
        yield "", "matches every reply; add a code, a status or a text"
    if row.code:
        matched = [code for code in range(200, 600) if re.fullmatch(row.code, str(code))]
        is_accepted = (row.stages, row.verdict) == (("rcpt",), "bounce") and bool(
            _ODD_ACCEPTED.issuperset(matched) and (row.status or row.text)
        )
        if not matched:
            yield "code", f'{row.code} matches no reply code; write e.g. "421" or "5.."'
        elif matched[0] < 400 and not is_accepted:
            yield (
                "code",
                f"{row.code} matches {matched[0]}, but only 4xx and 5xx are refusals; "
                'write e.g. "421" or "5.."',
            )
        elif matched[0] < 500 and row.verdict == "bounce" and not is_accepted:
            yield "code", f'{row.code} matches {matched[0]}, but only 5xx bounces; write "5.."'
    if early and row.verdict == "bounce":
        yield (
            "verdict",
            f"bounce cannot be at stage {early}: a refusal before MAIL says nothing about a "
            "message; write hold or retry, or stages from mail on",
        )
    if row.verdict == "doubt" and row.stages != ("content",):
        yield (
            "verdict",
            "doubt can only be of the reply to the content: before that nothing was sent; write "
            "stages: [content]",
        )


def _meaning_conflicts(row: ReplyRow, early: StageName | None) -> Iterator[tuple[str, str]]:
    allowed = _SCOPES[row.verdict]
    if row.scope is not None and row.scope not in allowed:
        yield (
            "scope",
            f"{row.scope} cannot be combined with {row.verdict}; write {' or '.join(allowed)}",
        )
    elif row.scope in _OF_A_MESSAGE and early and row.verdict != "bounce":
        yield (
            "scope",
            f"{row.scope} cannot be at stage {early}, where the message is not known; write "
            "provider",
        )
    if row.limit is not None and row.verdict != "throttle":
        yield "limit", f"cannot be combined with {row.verdict}; remove it, or write throttle"
    if row.wait and row.verdict == "bounce":
        yield "wait", "cannot be combined with bounce, which is final; remove it"


# --- providers --------------------------------------------------------------------------------

Quota = Annotated[int, Field(strict=True, ge=1, le=1_000_000_000)]
Chaining = Literal["auto"] | bool
Counted = Literal["messages", "recipients"]  # what a provider counts against a limit


class TlsPolicy(StrEnum):
    """How a provider's connection is protected."""

    REQUIRED = "required"  # STARTTLS, certificate verified
    IMPLICIT = "implicit"  # implicit TLS, certificate verified
    ENCRYPT = "encrypt"  # STARTTLS, certificate not verified: as Postfix's level of that name
    OPPORTUNISTIC = "opportunistic"  # STARTTLS if offered, certificate not verified
    NONE = "none"


_PORT_OF_IMPLICIT_TLS = 465
_PORTS_OF_STARTTLS = (25, 587)
_BY_STARTTLS = (TlsPolicy.REQUIRED, TlsPolicy.ENCRYPT, TlsPolicy.OPPORTUNISTIC)


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
    checked(_is_token_url, "is not an https URL; write e.g. https://oauth2.googleapis.com/token"),
]
"""An https URL, or http on this machine: secrets are sent there."""


class Oauth(Section):
    """Where to get access tokens for XOAUTH2: by refresh token, else by client credentials."""

    token_url: TokenUrl = Field(examples=["https://oauth2.googleapis.com/token"])
    client_id: UserName
    client_secret: SecretRef | None = None
    certificate: str | None = Field(default=None, min_length=1)  # PEM file, instead of a secret
    key: PemRef | None = None  # its private key
    refresh_token: SecretRef | None = None
    scope: str | None = Field(default=None, min_length=1)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Check that the application is known by a secret or a certificate, not by both."""
        if self.certificate is not None and self.client_secret is not None:
            yield "certificate", "cannot be combined with client_secret; remove one of them"
        if self.certificate is not None and self.key is None:
            yield "certificate", "has no key; add a reference to its private key"
        if self.key is not None and self.certificate is None:
            yield "key", "has no certificate; add the PEM file with the certificate of this key"
        if all(
            credential is None
            for credential in (self.client_secret, self.certificate, self.refresh_token)
        ):
            yield (
                "",
                "has neither client_secret, certificate nor refresh_token; add the one from your "
                "provider",
            )


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
    rate: Rate | None = None
    rate_counts: Counted = "messages"
    daily_quota: Quota | None = Field(default=None, examples=[10000])  # in any 24 hours
    quota_counts: Counted = "messages"
    max_connections: Count = 5
    max_messages_per_connection: Count = 100
    max_recipients: Count = 100  # recipients in one transaction
    max_message_size: Size | None = Field(default=None, ge=1)  # besides what EHLO says
    senders: tuple[Pattern, ...] = ()  # what it may send as; empty: anything
    headers: dict[HeaderName, str] = {}  # added where the mail has none of that name
    idempotency: Idempotency = Idempotency()  # how a retry is known to be one; auto: by the preset
    send_source: bool = False  # tell the next relaygw which user and script a mail is from
    chain_transactions: Chaining = "auto"  # the next envelope behind the content (RFC 2920 3.1)
    idle_close: Interval = 45.0  # an idle connection is closed after this
    timeouts: Timeouts = Timeouts()
    events: ProviderEvents | None = None  # None: what it reports of mail is not asked for
    replies: tuple[ReplyRow, ...] = ()  # own rows of the reply catalogue, before all others

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Check that user name and secret come together, and never in clear over a network."""
        yield from self._oauth_conflicts()
        yield from self._key_conflicts()
        events_problem = self.events.problem(self.preset) if self.events is not None else None
        if events_problem is not None:
            yield "events", events_problem
        if self.username is not None and not self.has_credentials:
            if self.auth != "xoauth2" and self.oauth is None:  # else it is told already
                yield "username", "has no password; set both or neither"
            return
        if self.username is None and self.password is not None:
            yield "password", "has no username; set both or neither"
        is_clear = self.tls == "none" and not is_loopback_host(self.host)
        if self.has_credentials and is_clear and not self.auth_without_tls:
            secret = "access token" if self.uses_xoauth2 else "password"
            yield (
                "tls",
                f"none would send the {secret} to {self.host} in clear text; write tls: required, "
                "or auth_without_tls: true on a trusted network",
            )

    def _oauth_conflicts(self) -> Iterator[tuple[str, str]]:
        oauth = self.oauth
        if oauth is None:
            if self.auth == "xoauth2":
                yield "auth", "xoauth2 needs a token source; add the section oauth"
            return
        if not self.uses_xoauth2:
            yield (
                "oauth",
                f"has no effect with auth: {self.auth}; write auth: xoauth2, or remove one of them",
            )
        if self.username is None:
            yield "oauth", "has no username; add the mailbox that the token is for"

    def _key_conflicts(self) -> Iterator[tuple[str, str]]:
        key = self.key_header
        if key is None:
            return
        name = next(
            (header for header in self.headers if header.lower() == key.header.lower()), None
        )
        if name is not None:
            yield (
                "headers",
                f"{name} would be the same idempotency key for all mail: one is sent, the rest "
                "is not; remove it, or write idempotency: off",
            )
        if self.send_source:
            yield (
                "send_source",
                "true cannot be combined with idempotency: each gateway of a fleet tells its own "
                "name, and a retry has to be the same to the byte; write idempotency: off, or "
                "remove send_source",
            )

    def tls_doubts(self) -> Iterator[str]:
        """Yield what is said of a policy that is allowed, and may not be what was meant."""
        if self.port == _PORT_OF_IMPLICIT_TLS and self.tls in _BY_STARTTLS:
            yield (
                f"{self.tls} uses STARTTLS, but port {self.port} uses implicit TLS; write tls: "
                "implicit, with tls_ca if the server has its own CA, or port: 587"
            )
        if self.port in _PORTS_OF_STARTTLS and self.tls is TlsPolicy.IMPLICIT:
            yield (
                f"port {self.port} uses STARTTLS, and tls: implicit speaks TLS from the start; "
                f"write tls: required, or port: {_PORT_OF_IMPLICIT_TLS}"
            )
        is_open = self.has_credentials and not is_loopback_host(self.host)
        why = {TlsPolicy.ENCRYPT: "does not verify the certificate"}
        if is_open:
            why[TlsPolicy.OPPORTUNISTIC] = "verifies no certificate, and can do without TLS"
            why[TlsPolicy.NONE] = "encrypts nothing"
        if self.tls in why:
            yield (
                f"{self.tls} {why[self.tls]}: anyone in the path can read passwords and mail; "
                "write tls: required, with tls_ca if the server has its own CA"
            )

    @property
    def key_header(self) -> KeyHeader | None:
        """Where it reads an idempotency key, None without: see decision 20."""
        is_auto = self.idempotency.word == "auto"
        return key_header_of(self.preset) if is_auto else self.idempotency.own

    @property
    def recipients_at_once(self) -> int:
        """How many recipients share a transaction: with a key each has one of its own."""
        return self.max_recipients if self.key_header is None else 1

    @property
    def rate_is_of(self) -> Counted:
        """What counts against `rate`."""
        return self.rate_counts if self.key_header is None else "recipients"

    @property
    def quota_is_of(self) -> Counted:
        """What counts against `daily_quota`."""
        return self.quota_counts if self.key_header is None else "recipients"

    @property
    def uses_xoauth2(self) -> bool:
        """True when it is logged in to by access token: `auto` is that, too, where oauth is set."""
        return self.auth == "xoauth2" or (self.auth == "auto" and self.oauth is not None)

    @property
    def has_credentials(self) -> bool:
        """True when there is something to log in with."""
        return (self.oauth if self.uses_xoauth2 else self.password) is not None
