"""The model of relaygw.yaml: every key, its type, its default and its meaning.

Field names are the keys users write, so they carry no units; the types do (Duration is seconds,
Size is bytes). A null key means its default. What two keys must agree on is checked by their
section, and between sections at the end. What needs the network or the disk is not checked here.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from relaygw.mail import drop
from relaygw.mail.address import folded
from relaygw.settings.addresses import (
    Address,
    Domain,
    Host,
    HostPort,
    Name,
    Recipients,
    Rewrite,
    same_addresses,
)
from relaygw.settings.alerts import Alert, AlertRules, alert_conflicts
from relaygw.settings.content_check import ContentCheck
from relaygw.settings.digest import Digest
from relaygw.settings.events import Events, events_conflicts
from relaygw.settings.guard import Guard
from relaygw.settings.listeners import Listener, User, listener_conflicts, open_relays
from relaygw.settings.provider import Provider
from relaygw.settings.routes import RelayEntry, Route, route_conflicts
from relaygw.settings.secrets import SecretRef, SecretUrl
from relaygw.settings.section import (
    Conflict,
    Duration,
    Interval,
    Mode,
    Section,
    Share,
    checked,
    fits,
    raise_conflicts,
)
from relaygw.settings.silence import Expected, Silence
from relaygw.settings.storms import Storms
from relaygw.settings.suppression import Suppression
from relaygw.settings.web import Metrics, Web, metrics_conflicts, web_conflicts
from relaygw.settings.webhooks import Webhook, webhook_conflicts

_SQLITE = "sqlite:////var/lib/relaygw/queue.db"
_POSTGRES = "postgresql://relaygw@db.example.com/relaygw"
_HOSTS = re.compile(r"(postgresql://(?:[^@/?#]*@)?)([^@/?#]*,[^@/?#]*)(/[^?#]*)(?:\?(.*))?")
_HOST = re.compile(r"([^\[\]:]+|\[[^\]]*\])(?::(\d+))?")
_LOG_FILE = "/var/log/relaygw/mail.log"


class Processes(Section):
    """How many processes each role runs as."""

    front: int = Field(default=1, strict=True, ge=1, le=64)
    delivery: int = Field(default=1, strict=True, ge=1, le=64)


def check_queue_url(url: str) -> str:
    """Return `url`; raises ValueError for what names no database, or holds a password."""
    if url.startswith(("postgres:", "postgresql+")):
        raise ValueError(f"has a scheme other than postgresql; write e.g. {_POSTGRES}")
    if url.startswith("postgresql:"):
        return _check_postgres(url)
    path = url.removeprefix("sqlite:///")
    if url and (path == url or not path.startswith("/") or path.endswith("/") or "?" in path):
        raise ValueError(
            f"is not the URL of a SQLite file with an absolute path; write e.g. {_SQLITE} "
            f"with four slashes, or {_POSTGRES}"
        )
    return url


def _check_postgres(url: str) -> str:
    url = _with_hosts_apart(url)
    try:
        parts = urlsplit(url)
        has_database = bool(parts.path.strip("/"))
        has_password = parts.password is not None or "password" in parts.query.lower()
        _ = parts.port
    except ValueError:
        has_database = has_password = False
    if not has_database:
        raise ValueError(f"names no database; write e.g. {_POSTGRES}")
    if has_password:
        raise ValueError(
            "holds a password; remove it and write queue.password: file:PATH (or env:NAME), or "
            "use PGPASSFILE"
        )
    return url


def _with_hosts_apart(url: str) -> str:
    """Return the URL of several servers with their ports in the one form that all parsers know."""
    found = _HOSTS.fullmatch(url)
    if found is None or ":" not in found[2]:
        return url
    hosts = [_HOST.fullmatch(host) for host in found[2].split(",")]
    if not all(hosts):
        return url
    names = ",".join(host[1].strip("[]") for host in hosts if host)
    ports = ",".join(host[2] or "5432" for host in hosts if host)
    rest = f"&{found[4]}" if found[4] else ""
    return f"{found[1]}{found[3]}?host={names}&port={ports}{rest}"


class Queue(Section):
    """Where accepted mail is kept, and how long."""

    url: Annotated[str, AfterValidator(check_queue_url)] = ""  # empty: SQLite, by the loader
    password: SecretRef | None = None  # of PostgreSQL; default: its own means, such as PGPASSFILE
    allow_unsafe: bool = False  # a PostgreSQL with fsync or synchronous_commit off
    retention: Duration = 7 * 86400.0  # finished messages stay searchable this long
    keep_content: Duration = 0.0  # content of delivered messages is kept this long
    min_free: Share = 0.05  # share of the volume below which the front answers 452

    @property
    def is_postgres(self) -> bool:
        """True when several instances may share the queue."""
        return self.url.startswith("postgresql:")


_MaildropPath = Annotated[
    str,
    checked(
        lambda path: path.startswith("/") and path.strip("/"),
        f"is not an absolute path; write e.g. {drop.DIRECTORY}",
    ),
]


class Maildrop(Section):
    """Where the sendmail command leaves mail."""

    path: _MaildropPath | None = Field(default=None, examples=[drop.DIRECTORY])  # by the loader
    group: str | None = Field(default=None, min_length=1)  # whose members alone may leave mail


class Retry(Section):
    """When a deferred delivery is tried again."""

    first: Interval = 30.0
    factor: float = Field(default=2.0, strict=True, ge=1, le=100)
    max: Interval = 3600.0
    lifetime: Interval = 5 * 86400.0
    jitter: Share = 0.2
    # the sender is told of mail that waits for so long
    warn_after: Interval | None = Field(default=None, examples=["4h"])

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Check that the delays can grow from first to max, and that a warning has a meaning."""
        if self.first > self.max:
            yield "first", "is longer than retry.max; write a shorter delay"
        if self.warn_after is not None and self.warn_after >= self.lifetime:
            yield "warn_after", "is not shorter than retry.lifetime; write a shorter time, e.g. 4h"


def parse_bounces_to(value: object) -> Any:
    """Read `none`, `sender` or an address."""
    if value in ("none", "sender") or (isinstance(value, str) and fits(Address, value)):
        return value
    raise ValueError("is not a receiver of notices; write none, sender or LOCALPART@DOMAIN")


class Bounces(Section):
    """Who is told of mail that is not delivered, by mail: see docs/bounces.md."""

    to: Annotated[str, BeforeValidator(parse_bounces_to)] = "none"  # | sender | an address
    # mail to it is read for bounces and complaints, see docs/events.md
    inbound: Address | None = Field(default=None, examples=["bounces@example.com"])

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Check that people are not told where only relaygw reads."""
        told, read = self.address, self.inbound
        if told is not None and read is not None and folded(told) == folded(read):
            yield "to", "is bounces.inbound, whose mail nobody gets; write another address"

    @property
    def address(self) -> str | None:
        """The address that is told instead of senders, if one is."""
        return None if self.to in ("none", "sender") else self.to


class Sandbox(Section):
    """How long captured mail is kept, and what it is checked with."""

    retention: Duration = 30 * 86400.0
    max_messages: int = Field(default=100_000, strict=True, ge=1)
    spamd: HostPort | None = Field(default=None, examples=["127.0.0.1:783"])  # of SpamAssassin
    # hosts of links that are checked though their addresses are private
    link_hosts: tuple[Host, ...] = Field(default=(), examples=[["shop.internal"]])
    # hosts of the live shop: links to them are marked in captured mail
    production_hosts: tuple[Host, ...] = Field(default=(), examples=[["www.example.com"]])


def _check_file_path(path: str) -> str:
    if not path.startswith("/") or path.endswith("/") or not path.isprintable():
        raise ValueError(f"has no absolute file path; write e.g. {_LOG_FILE}")
    return path


def _check_log_target(value: str) -> str:
    kind, colon, path = value.partition(":")
    if kind == "file" and colon:
        _check_file_path(path)
    elif value not in ("stderr", "syslog"):
        raise ValueError(f"is not a target; write stderr, syslog or file:{_LOG_FILE}")
    return value


class Log(Section):
    """What is logged and how."""

    format: Literal["postfix", "json"] = "postfix"
    target: Annotated[str, AfterValidator(_check_log_target)] = "stderr"
    subject: bool = True  # subject and source behind what Postfix writes
    redact: tuple[Literal["subject", "local_part", "addresses"], ...] = ()  # see observe.events
    syslog_name: Annotated[  # in front of the daemon's name
        str,
        checked(
            re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,31}").fullmatch,
            "is not 1-32 letters, digits or any of . _ / -; write e.g. postfix",
        ),
    ] = "relaygw"
    syslog_socket: Annotated[str, AfterValidator(_check_file_path)] = Field(
        default="/dev/log", examples=["/dev/log"]
    )

    @property
    def file(self) -> Path | None:
        """The file that the log goes to, if it does."""
        kind, _, path = self.target.partition(":")
        return Path(path) if kind == "file" else None


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
    relay_to: tuple[RelayEntry, ...] = ()  # the loader has made providers and a route of it
    routes: tuple[Route, ...] = ()
    recipients: Recipients = Recipients()
    rewrite: Rewrite = Rewrite()
    # gets each mail that is accepted, too; see policy.recipients
    archive_to: Address | None = Field(default=None, examples=["archive@example.com"])
    retry: Retry = Retry()
    bounces: Bounces = Bounces()
    suppression: Suppression = Suppression()
    sandbox: Sandbox = Sandbox()
    alerts: tuple[Alert, ...] = ()
    alert_rules: AlertRules = AlertRules()
    webhooks: tuple[Webhook, ...] = ()
    guard: Guard = Guard()
    silence: Silence = Silence()
    expect: tuple[Expected, ...] = ()
    # called each minute while mail is accepted, claimed and not late
    heartbeat_url: SecretUrl | None = Field(default=None, examples=["env:HEARTBEAT_URL"])
    storms: Storms = Storms()
    duplicates: Literal["send", "once"] = "send"
    content_check: ContentCheck = ContentCheck()
    digest: Digest = Digest()
    log: Log = Log()
    web: Web = Web()
    metrics: Metrics = Metrics()
    events: Events = Events()

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

    @property
    def counts_sources(self) -> bool:
        """True where something needs to know who sends what."""
        return (
            self.guard.action != "off"
            or self.silence.enabled
            or bool(self.expect)
            or self.storms.action != "off"
            or self.digest.is_on
        )


_BETWEEN_SECTIONS: tuple[tuple[Callable[[Settings], Iterator[Conflict]], frozenset[str]], ...] = (
    (open_relays, frozenset({"listeners"})),  # the first, and with any mode but a known sandbox
    (same_addresses, frozenset({"listeners", "web", "metrics", "events"})),
    (route_conflicts, frozenset({"mode", "providers", "relay_to", "routes", "listeners", "users"})),
    (listener_conflicts, frozenset({"mode", "listeners", "users"})),
    (web_conflicts, frozenset({"mode", "web"})),
    (metrics_conflicts, frozenset({"web", "metrics"})),
    (events_conflicts, frozenset({"providers", "events"})),
    (alert_conflicts, frozenset({"alerts", "providers", "routes"})),
    (webhook_conflicts, frozenset({"webhooks"})),
)
"""Each check with the sections that it looks at."""


def fingerprint(settings: Settings) -> str:
    """16 hex digits that change with what decides where mail goes, as instances compare it."""
    decisive = settings.model_dump(
        mode="json",
        include={
            "mode": True,
            "routes": True,
            "recipients": True,
            "rewrite": True,
            "archive_to": True,
            "providers": True,
            "suppression": True,
            "listeners": {"__all__": {"mode"}},  # each gateway binds its own addresses
            "users": {"__all__": {"name", "mode", "senders"}},
        },
        exclude={"providers": {"__all__": {"password", "oauth", "events"}}},
    )
    text = json.dumps(decisive, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
