"""Users and tokens of a web role for tests, and the settings that have them."""

from __future__ import annotations

from typing import Any

import argon2

from relaygw.settings.model import Settings

_HASHER = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
PASSWORDS = {"vera": "v-word", "otto": "o-word", "anna": "pä ss:word"}
ROLES = {"vera": "viewer", "otto": "operator", "anna": "admin"}
TOKENS = {"look": "look-token-with-24-chars", "tests": "test-token-with-24-chars"}
USERS = [
    {"name": name, "password_hash": _HASHER.hash(password), "role": ROLES[name]}
    for name, password in PASSWORDS.items()
]
RELAY = {
    "providers": {"p": {"host": "smtp.example.com"}},
    "routes": [{"name": "default", "providers": ["p"]}],
}


def hash_of(password: str) -> str:
    """Return a hash that is cheap to verify."""
    return _HASHER.hash(password)


def with_logins(
    mode: str = "staging", *, relay: dict[str, Any] | None = None, **web: Any
) -> Settings:
    """Return settings with a user of each role and two tokens; `relay`: providers and routes."""
    tokens = [
        {"name": "look", "token": f"plain:{TOKENS['look']}"},
        {"name": "tests", "token": f"plain:{TOKENS['tests']}", "role": "operator"},
    ]
    if relay is None:
        relay = {} if mode == "sandbox" else RELAY
    return Settings.model_validate(
        {"mode": mode, "web": {"users": USERS, "tokens": tokens, **web}, **relay}
    )
