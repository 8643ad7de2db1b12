"""Who may come here, for a review: logins with their roles, and clients that come too often."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from relaygw.mail.clock import rfc3339, rfc3339_or_none
from relaygw.mail.words import fields
from relaygw.passwords import Uses
from relaygw.settings.model import Settings
from relaygw.store.sessions import LoginKey
from relaygw.store.store import Store
from relaygw.store.visitors import Throttled

_MARK_DIGITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A name that may log in now."""

    kind: str  # web: a person; token: a program; smtp: who sends mail
    name: str
    role: str  # "" of smtp
    since_ms: int | None  # when it, or its present password, was seen first
    used_at_ms: int | None  # None: never since then


def review(store: Store, settings: Settings, uses: Uses | None = None) -> list[Access]:
    """Return all who may log in; `uses` are those that are not written yet."""
    known = {(login.kind, login.name): login for login in store.sessions.known()}
    found = []
    for (kind, name), role in _roles(settings).items():
        login = known.get((kind, name))
        since_ms, used_at_ms = (login.since_ms, login.used_at_ms) if login else (None, None)
        used_at_ms = (uses or {}).get((kind, name), used_at_ms)
        found.append(
            Access(kind=kind, name=name, role=role, since_ms=since_ms, used_at_ms=used_at_ms)
        )
    return found


def access_object(access_rule: Access) -> dict[str, Any]:
    """Return a name for JSON; the command line and the API have the same fields."""
    return {
        **fields(access_rule, "kind", "name", "role"),
        "since": rfc3339_or_none(access_rule.since_ms),
        "used_at": rfc3339_or_none(access_rule.used_at_ms),
    }


def note_logins(store: Store, settings: Settings, *, now_ms: int) -> None:
    """Record who is known from now on. Raises StoreUnavailable."""
    # of a token there is the reference only: its age is that of its name
    marks: dict[LoginKey, str] = dict.fromkeys(_roles(settings), "-")
    marks |= {("web", user.name): _mark(user.password_hash) for user in settings.web.users}
    marks |= {("smtp", user.name): _mark(user.password_hash) for user in settings.users}
    if marks:
        store.sessions.note_known(marks, now_ms=now_ms)


def _roles(settings: Settings) -> dict[LoginKey, str]:
    """Return the role of each name, by its kind and the name."""
    web = settings.web
    return {
        **{("web", user.name): user.role for user in web.users},
        **{("token", token.name): token.role for token in web.tokens},
        **{("smtp", user.name): "" for user in settings.users},
    }


def _mark(password_hash: str) -> str:
    return hashlib.sha256(password_hash.encode()).hexdigest()[:_MARK_DIGITS]


# --- clients ----------------------------------------------------------------------------


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
    for listener in settings.listeners:
        for by, networks in (("allow", listener.allow), ("exempt", listener.exempt)):
            limits = ["max_connections_per_client"]
            if by == "exempt":
                limits.append("rate_per_client")
            for network in networks:
                yield ExemptNetwork(
                    listener=str(listener.bind), network=str(network), by=by, limits=tuple(limits)
                )


def throttled_object(client: Throttled) -> dict[str, Any]:
    """Return a client for JSON; the command line and the API have the same fields."""
    return {
        **fields(client, "listener", "client", "cause", "times"),
        "first_seen": rfc3339(client.first_seen_ms),
        "last_seen": rfc3339(client.last_seen_ms),
    }


def exempt_object(exempt_network: ExemptNetwork) -> dict[str, Any]:
    """Return a network for JSON."""
    return {
        **fields(exempt_network, "listener", "network", "by"),
        "limits": list(exempt_network.limits),
    }
