"""The gateways that sessions meet: their settings, and what a client of each may do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import argon2

from relaygw.settings.model import Settings

LOCAL, STRANGER = "127.0.0.1", "198.51.100.7"
USER, PASSWORD = "shop", "secret"
LIMIT_BYTES = 40_000
MAX_RECIPIENTS = 4


@dataclass(frozen=True, slots=True)
class Profile:
    """One gateway with one listener, and a client of it."""

    name: str
    peer: str = LOCAL
    mode: str = "production"
    auth: str = ""  # "": there are no users
    has_proxy: bool = False
    has_trouble: bool = False  # some transactions of its queue fail

    @property
    def has_users(self) -> bool:
        """True if somebody could log in."""
        return bool(self.auth)


PROFILES = (
    Profile("plain"),
    Profile("sandbox", mode="sandbox"),
    Profile("login", auth="optional"),
    Profile("login required", auth="required"),
    Profile("stranger", peer=STRANGER),
    Profile("stranger, login", peer=STRANGER, auth="optional"),
    Profile("balancer", has_proxy=True),
    Profile("queue in trouble", has_trouble=True),
)


@cache
def _password_hash() -> str:
    return argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)


@cache
def settings_of(profile: Profile) -> Settings:
    """Return the settings of its gateway, read once."""
    return Settings.model_validate(dict(_sections(profile)))


def _sections(profile: Profile) -> Iterator[tuple[str, Any]]:
    listener: dict[str, Any] = {
        "bind": f"{LOCAL}:25",
        "max_message_size": LIMIT_BYTES,
        "max_recipients": MAX_RECIPIENTS,
    }
    if profile.has_users:
        listener["auth"] = profile.auth
        yield "users", [{"name": USER, "password_hash": _password_hash()}]
    if profile.has_proxy:
        listener["proxy_protocol"] = [f"{LOCAL}/32"]
    yield "mode", profile.mode
    yield "hostname", "gw.test"
    yield "queue", {"url": "sqlite:////run/queue.db", "min_free": "0%"}
    yield "listeners", [listener]
    if profile.mode == "production":
        yield "providers", {"p": {"host": "192.0.2.1", "port": 25, "tls": "none"}}
        yield "routes", [{"name": "default", "providers": ["p"]}]
