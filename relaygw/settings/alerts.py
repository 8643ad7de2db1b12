"""Sections `alerts` and `alert_rules`: what is watched for, and who is told."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from relaygw.settings.addresses import Address, Name
from relaygw.settings.secrets import SecretRef, SecretUrl, split_command
from relaygw.settings.section import (
    Conflict,
    Count,
    Interval,
    Section,
    Share,
    repeated_names,
    unknown_names,
)

if TYPE_CHECKING:
    from relaygw.settings.model import Settings


class Rule(StrEnum):
    """What is looked for."""

    PROVIDER_DOWN = "provider_down"
    PROVIDER_PAUSED = "provider_paused"
    AUTH_FAILED = "auth_failed"
    NO_DELIVERY = "no_delivery"
    FRONT_REFUSING = "front_refusing"
    QUEUE_AGE = "queue_age"
    QUEUE_GROWTH = "queue_growth"
    BOUNCE_RATE = "bounce_rate"
    SENDER_COMPLAINTS = "sender_complaints"
    SUPPRESSION = "suppression"
    VOLUME_ANOMALY = "volume_anomaly"
    STORM = "storm"
    SOURCE_NEW = "source_new"
    SOURCE_VOLUME = "source_volume"
    GUARD_LEARNING = "guard_learning"
    SILENCE = "silence"
    QUOTA_NEAR = "quota_near"
    IN_DOUBT = "in_doubt"
    HELD = "held"
    ROUTE_GONE = "route_gone"
    STUCK = "stuck"
    INSTANCE_LOST = "instance_lost"
    ROLE_HUNG = "role_hung"
    RELOAD_REFUSED = "reload_refused"
    DISK_LOW = "disk_low"
    CERTIFICATE_EXPIRING = "certificate_expiring"
    MAILDROP_STUCK = "maildrop_stuck"
    CLOCK_STEP = "clock_step"
    WEBHOOK_FAILING = "webhook_failing"
    CONFIG_CHANGED = "config_changed"
    LOGIN_FAILURES = "login_failures"
    API_STRANGER = "api_stranger"
    LOGIN_ENDS = "login_ends"


_KINDS = ("webhook", "command", "email", "apprise")


def _parse_command(value: object) -> Any:
    """Read a list of words, or one line as a shell would cut it; no shell is ever started."""
    if isinstance(value, str):
        value = split_command(value)
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError("names no program; write e.g. [/usr/local/bin/notify, ops]")
        if not all(isinstance(word, str) and "\0" not in word for word in value):
            raise ValueError("is not a list of strings; write numbers in quotes")
        if not str(value[0]).startswith("/"):
            raise ValueError("needs the absolute path of a program; write e.g. /usr/bin/logger")
        return tuple(value)
    raise ValueError("is not a command; write e.g. [/usr/local/bin/notify, ops]")


def shown_command(words: tuple[str, ...]) -> list[str]:
    """Return a command as it may be shown: an argument may be the key of a service."""
    return [words[0], *(["***"] if len(words) > 1 else [])]


_CommandLine = Annotated[
    tuple[str, ...],
    BeforeValidator(_parse_command),
    PlainSerializer(shown_command, return_type=list[str], when_used="json"),
]


class Alert(Section):
    """One channel: who is told, and of what."""

    name: Name | None = None  # in logs and commands; None: its kind and its place in the list
    webhook: SecretUrl | None = Field(default=None, examples=["env:ALERT_URL"])
    shape: Literal["auto", "slack", "json"] = "auto"  # of what a webhook gets
    command: _CommandLine | None = Field(default=None, repr=False)
    email: Address | None = None
    sender: Address | None = None  # of that mail: an address that the providers accept
    providers: tuple[str, ...] = ()  # for that mail, in this order; empty: all
    apprise: SecretRef | None = Field(default=None, examples=["env:APPRISE_URL"])
    on: tuple[Rule, ...] = ()  # empty: all

    @property
    def kind(self) -> str:
        """The key that says how it tells."""
        return next(kind for kind in _KINDS if getattr(self, kind) is not None)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Check that it is one channel, with what goes with that kind."""
        kinds = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if not kinds:
            yield "", f"names no channel; write one of {', '.join(_KINDS)}"
        elif len(kinds) > 1:
            yield (
                kinds[1],
                f"is set together with {kinds[0]}; each entry is one channel, so write two entries",
            )
        if self.email is not None and self.sender is None:
            yield "email", "needs sender as well: an address of yours that the providers accept"
        for key in ("sender", "providers"):
            if getattr(self, key) and self.email is None:
                yield key, "is for email only; remove it"


class AlertRules(Section):
    """From when on something is trouble."""

    lasting: Interval = 20.0  # so long before it is told, and before its end is
    paused: Interval = 120.0  # transactional mail waits for so long for a paused provider
    queue_age: Interval = 4 * 3600.0
    queue_growth: Count = 500  # more waiting recipients within half an hour, of 1000 at least
    bounce_rate: Share = 0.05  # of what a provider got within an hour
    bounce_least: Count = 20  # and so many at least
    complaint_rate: Share = 0.001  # of what a sender's domain sent within a day
    complaint_least: Count = 3  # and so many at least
    no_delivery: Interval = 900.0  # nothing delivered for so long while mail waits
    refusals: Count = 10  # 451 and 452 replies within five minutes
    login_failures: Count = 10  # within an hour, by SMTP or at the pages
    volume_factor: float = Field(default=4.0, strict=True, gt=1, le=1000)
    volume_least: Count = 500  # recipients within an hour
    quota_near: Share = 0.9
    disk_free: Share = 0.1
    certificate_left: Interval = 14 * 86400.0


def channel_name(alert: Alert, number: int) -> str:
    """Return the name of the entry at a place of the list, counted from 0."""
    return alert.name or f"{alert.kind}-{number + 1}"


def alert_conflicts(settings: Settings) -> Iterator[Conflict]:
    """Check that channels have different names, and that the providers of mail exist."""
    names = [
        (("alerts", n, "name"), channel_name(channel, n))
        for n, channel in enumerate(settings.alerts)
    ]
    yield from repeated_names(names, "one")
    for number, alert in enumerate(settings.alerts):
        place = ("alerts", number, "providers")
        yield from unknown_names(place, alert.providers, "providers", settings.providers)
