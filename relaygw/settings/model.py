"""The model of relaygw.yaml: every key, its type, its default and its meaning.

Field names are the keys users write, so they carry no units; the types do (Duration is
seconds, Size is bytes). Models are frozen; a null key means its default. What two keys must
agree on is checked by settings.conflicts, which runs here so that no instance breaks it.
What needs the network or the disk is not checked here.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
    model_validator,
)

from relaygw.mail import drop
from relaygw.settings.addresses import (
    Address,
    Domain,
    Entry,
    HeaderName,
    Name,
    Pattern,
    RewriteKey,
)
from relaygw.settings.alerts import Alert, AlertRules, alert_conflicts
from relaygw.settings.bind import Bind
from relaygw.settings.conflicts import (
    Conflict,
    raise_conflicts,
    recipients_conflicts,
    retry_conflicts,
    settings_conflicts,
)
from relaygw.settings.listener_conflicts import (
    listener_conflicts,
    listener_tls_conflicts,
    open_relays,
    same_addresses,
    user_conflicts,
)
from relaygw.settings.log import Log
from relaygw.settings.metrics import Metrics, metrics_conflicts
from relaygw.settings.provider import Provider
from relaygw.settings.queue_url import check_queue_url
from relaygw.settings.relay_to import Relay
from relaygw.settings.secrets import SecretRef
from relaygw.settings.section import Count, Section
from relaygw.settings.units import Duration, Interval, Network, Pace, Share, Size, parse_network
from relaygw.settings.user import PasswordHash, UserLogin
from relaygw.settings.web import Web
from relaygw.settings.web_conflicts import web_conflicts


class Mode(StrEnum):
    """What may leave the gateway."""

    PRODUCTION = "production"  # everything, less the block list
    STAGING = "staging"  # only recipients on the allow list
    SANDBOX = "sandbox"  # nothing

    @property
    def strictness(self) -> int:
        """More for what lets less out."""
        return _STRICTNESS.index(self)


_STRICTNESS = (Mode.PRODUCTION, Mode.STAGING, Mode.SANDBOX)


class Stream(StrEnum):
    """Kinds of mail; transactional goes first."""

    TRANSACTIONAL = "transactional"
    PROMOTIONAL = "promotional"


class Processes(Section):
    """How many processes each role runs as."""

    front: int = Field(default=1, strict=True, ge=1, le=64)
    delivery: int = Field(default=1, strict=True, ge=1, le=64)


class Queue(Section):
    """Where accepted mail is kept, and how long."""

    url: str = ""  # empty: the loader puts SQLite in the state directory
    password: SecretRef | None = None  # of PostgreSQL; default: its own means, such as PGPASSFILE
    allow_unsafe: bool = False  # a PostgreSQL with fsync or synchronous_commit off
    retention: Duration = 7 * 86400.0  # finished messages stay searchable this long
    keep_content: Duration = 0.0  # content of delivered messages is kept this long
    min_free: Share = 0.05  # share of the volume below which the front answers 452

    @field_validator("url")
    @classmethod
    def _known_database(cls, url: str) -> str:
        return check_queue_url(url)

    @property
    def is_postgres(self) -> bool:
        """True when several instances may share the queue."""
        return self.url.startswith("postgresql:")


class ListenerTls(Section):
    """How a listener protects the connections of its clients."""

    mode: Literal["off", "starttls", "implicit"] = "off"
    cert: str | None = Field(default=None, min_length=1)  # PEM: certificate, then intermediate ones
    key: str | None = Field(default=None, min_length=1)  # PEM; default: in the file of the cert

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        raise_conflicts(listener_tls_conflicts(self))
        return self


class Listener(Section):
    """One SMTP address that the front listens on."""

    bind: Bind = Field(examples=["127.0.0.1:25"])
    allow: tuple[Network, ...] = (parse_network("127.0.0.0/8"), parse_network("::1/128"))
    auth: Literal["off", "optional", "required"] = "optional"  # offered once there are users
    tls: ListenerTls = ListenerTls()
    proxy_protocol: tuple[Network, ...] = ()  # balancers whose PROXY header is required, believed
    mode: Mode | None = None  # stricter than the global one
    max_message_size: Size = Field(default=50 * 2**20, ge=1)
    max_recipients: Count = 1000
    max_connections: Count = 1000
    max_connections_per_client: Count = 50  # networks in allow are exempt
    rate_per_client: Pace | None = None  # messages of one client, for each front process
    trust_source: tuple[Network, ...] = ()  # whose word on user and script is taken


class User(Section):
    """Who may log in to a listener, and as whom that client sends."""

    name: UserLogin = Field(examples=["shop1"])
    password_hash: PasswordHash
    senders: tuple[Pattern, ...] = ()  # envelope senders; empty: anything
    mode: Mode | None = None  # stricter than the global one


class Maildrop(Section):
    """Where the sendmail command leaves mail."""

    path: str | None = Field(default=None, examples=[drop.DIRECTORY])  # None: the loader's choice
    group: str | None = Field(default=None, min_length=1)  # whose members alone may leave mail

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        if path is not None and (not path.startswith("/") or not path.strip("/")):
            raise ValueError(f"is not an absolute path; write e.g. {drop.DIRECTORY}")
        return path


class Route(Section):
    """A condition on a message and where it goes; the first match wins."""

    name: Name = Field(examples=["default"])
    sender: tuple[Pattern, ...] = ()
    recipient: tuple[Pattern, ...] = ()
    header: dict[HeaderName, str] = {}  # header name: glob; all must match
    listener: tuple[Bind, ...] = ()  # one of the listeners, by its bind
    user: tuple[UserLogin, ...] = ()  # one of the users
    stream: Stream = Stream.TRANSACTIONAL
    providers: tuple[str, ...] = Field(examples=["[NAME]"])  # the next while the first is down

    @field_validator("providers")
    @classmethod
    def _each_once(cls, providers: tuple[str, ...]) -> tuple[str, ...]:
        if not providers:
            raise ValueError("names no provider; write one")
        if len(set(providers)) < len(providers):
            raise ValueError("names a provider twice; write each once")
        return providers

    @property
    def is_unconditional(self) -> bool:
        """True when the route matches every message."""
        conditions = (self.sender, self.recipient, self.header, self.listener, self.user)
        return not any(conditions)


class Refused(Section):
    """What happens to recipients that are not allowed in staging."""

    action: Literal["capture", "drop", "redirect"] = "capture"
    redirect_to: Address | None = None


def parse_refused(value: object) -> Any:
    """Read `capture`, `drop` or `redirect:ADDRESS`."""
    if isinstance(value, Refused):
        return value
    if isinstance(value, str):
        kind, colon, address = value.partition(":")
        if value in ("capture", "drop"):
            return {"action": value}
        if kind == "redirect" and colon:
            return {"action": kind, "redirect_to": address.strip()}
    raise ValueError("is not an action; write capture, drop or redirect:ADDRESS")


def format_refused(refused: Refused) -> str:
    """Return the form that `parse_refused` reads."""
    address = refused.redirect_to
    return refused.action if address is None else f"{refused.action}:{address}"


class Recipients(Section):
    """Who may receive."""

    allow: tuple[Entry, ...] = ()  # used in staging: only these receive
    block: tuple[Entry, ...] = ()  # used in every mode
    refused: Annotated[
        Refused,
        BeforeValidator(parse_refused),
        PlainSerializer(format_refused, return_type=str, when_used="json"),
    ] = Refused()
    blocked: Literal["drop", "reject", "capture"] = "drop"

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        raise_conflicts(recipients_conflicts(self))
        return self


class Rewrite(Section):
    """Address changes at acceptance."""

    default_domain: Domain | None = None  # for an address without one
    senders: dict[Entry, Address] = {}
    recipients: dict[RewriteKey, Address] = {}


class Retry(Section):
    """When a deferred delivery is tried again."""

    first: Interval = 30.0
    factor: float = Field(default=2.0, strict=True, ge=1, le=100)
    max: Interval = 3600.0
    lifetime: Interval = 5 * 86400.0
    jitter: Share = 0.2

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        raise_conflicts(retry_conflicts(self))
        return self


class Sandbox(Section):
    """How long captured mail is kept."""

    retention: Duration = 30 * 86400.0
    max_messages: int = Field(default=100_000, strict=True, ge=1)


def _default_hostname() -> str:
    name = socket.getfqdn()
    # what a resolver makes of an address without a name is no name to greet a provider with
    if "." in name and not name.endswith(".arpa") and not name.startswith("localhost"):
        return name
    return socket.gethostname() or "localhost"


class Settings(Section):
    """A whole configuration."""

    mode: Mode
    hostname: Domain = Field(default_factory=_default_hostname)
    processes: Processes = Processes()
    queue: Queue = Queue()
    listeners: tuple[Listener, ...] = ()  # empty: the loader puts one on a loopback address
    users: tuple[User, ...] = ()
    maildrop: Maildrop = Maildrop()
    providers: dict[Name, Provider] = {}
    relay_to: tuple[Relay, ...] = ()  # the loader has made providers and a route of it
    routes: tuple[Route, ...] = ()
    recipients: Recipients = Recipients()
    rewrite: Rewrite = Rewrite()
    retry: Retry = Retry()
    sandbox: Sandbox = Sandbox()
    alerts: tuple[Alert, ...] = ()
    alert_rules: AlertRules = AlertRules()
    log: Log = Log()
    web: Web = Web()
    metrics: Metrics = Metrics()

    @model_validator(mode="after")
    def _sections_agree(self, info: ValidationInfo) -> Self:
        """Check what sections must agree on; `context` may name the only ones that are known."""
        known = info.context
        raise_conflicts(
            conflict
            for conflicts, sections in _BETWEEN_SECTIONS
            if known is None or sections <= known
            for conflict in conflicts(self)
        )
        return self


_BETWEEN_SECTIONS: tuple[tuple[Callable[[Settings], Iterator[Conflict]], frozenset[str]], ...] = (
    (open_relays, frozenset({"listeners"})),  # the first, and with any mode but a known sandbox
    (same_addresses, frozenset({"listeners", "web", "metrics"})),
    (
        settings_conflicts,
        frozenset({"mode", "providers", "relay_to", "routes", "listeners", "users"}),
    ),
    (listener_conflicts, frozenset({"mode", "listeners", "users"})),
    (user_conflicts, frozenset({"mode", "listeners", "users"})),
    (web_conflicts, frozenset({"mode", "web"})),
    (metrics_conflicts, frozenset({"web", "metrics"})),
    (alert_conflicts, frozenset({"alerts", "providers", "routes"})),
)
"""Each check with the sections that it looks at."""
