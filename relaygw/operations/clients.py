"""Clients of the listeners that were told to come later, and the networks that never are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from relaygw.mail.clock import rfc3339
from relaygw.mail.words import fields
from relaygw.settings.model import Settings
from relaygw.store.visitors import Throttled

CAUSES = {
    "rate": "more mail than rate_per_client",
    "connections": "too many connections",
    "logins": "locked out: too many failed logins",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExemptNetwork:
    """A network whose clients a listener does not limit."""

    listener: str
    network: str
    by: str  # the key that names it
    limits: tuple[str, ...]  # that do not hold for it


def exempt_networks(settings: Settings) -> Iterator[ExemptNetwork]:
    """Yield who has no limit of its own, by listener."""
    for one in settings.listeners:
        for by, networks in (("allow", one.allow), ("exempt", one.exempt)):
            limits = ["max_connections_per_client"]
            if by == "exempt":
                limits.append("rate_per_client")
            for network in networks:
                yield ExemptNetwork(
                    listener=str(one.bind), network=str(network), by=by, limits=tuple(limits)
                )


def throttled_object(one: Throttled) -> dict[str, Any]:
    """Return a client for JSON; the command line and the API have the same fields."""
    return {
        **fields(one, "listener", "client", "cause", "times"),
        "first_seen": rfc3339(one.first_seen_ms),
        "last_seen": rfc3339(one.last_seen_ms),
    }


def exempt_object(one: ExemptNetwork) -> dict[str, Any]:
    """Return a network for JSON."""
    return {**fields(one, "listener", "network", "by"), "limits": list(one.limits)}
