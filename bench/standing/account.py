"""Settings of an account that is logged in to without TLS, its password in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.rig.gateway import provider
from bench.rig.limited_terms import USER


def write_secret(directory: Path, secret: str) -> Path:
    """Put the password of the account in place, at once as a whole, and return where."""
    path, fresh = directory / "secret", directory / "secret.new"
    fresh.touch(mode=0o600)
    fresh.write_text(f"{secret}\n")
    fresh.rename(path)
    return path


def with_login(port: int, secret: Path, **more: Any) -> dict[str, Any]:
    """Return settings of a provider on this machine that wants AUTH."""
    login = {"username": USER, "password": f"file:{secret}", "auth_without_tls": True}
    return provider(port, **login, **more)
