"""How much of a wrong value an error shows: nothing that may be a secret in the wrong form."""

from __future__ import annotations

import json
import re
from typing import Any

from relaygw.settings.tree import Keys

NOT_SHOWN = "the value (not shown)"
_CREDENTIALS = (
    "username",
    "password",
    "password_hash",
    "client_id",
    "client_secret",
    "refresh_token",
    "token",
)
_URLS = ("url", "token_url", "relay_to")
"""Keys of URLs, any of which may carry a password."""
_SECRET_URLS = ("webhook", "apprise")
"""Keys of URLs that are secrets themselves."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_HOST = re.compile(r"[A-Za-z0-9.-]+")
_FIRST_LABEL = re.compile(r"[A-Za-z0-9-]+(?=\.)")


def shown_single(keys: Keys, value: Any) -> str:
    """Return a value that is neither a mapping nor a list as an error about `keys` may show it."""
    if any(key in _CREDENTIALS for key in keys):
        return NOT_SHOWN
    if isinstance(value, str):
        safe = _safe_text(keys, value)
        if safe is None:
            return NOT_SHOWN
        value = safe
    text = json.dumps(value, ensure_ascii=True, default=lambda other: type(other).__name__)
    return text if len(text) <= 80 else text[:76] + '..."'


def _safe_text(keys: Keys, text: str) -> str | None:
    """Return what may be shown of a text, None for nothing of it."""
    if any(key in _SECRET_URLS for key in keys):
        return _head_of_url(text, _FIRST_LABEL)
    if any(key in _URLS for key in keys):
        return _head_of_url(text, _HOST)
    if keys[:1] == ("alerts",) and keys[2:3] == ("command",):
        program, *arguments = text.split(maxsplit=1) or [""]
        return f"{program} ***" if arguments else program
    return text


def _head_of_url(text: str, head: re.Pattern[str]) -> str | None:
    """Return the scheme, or without one what `head` finds at the beginning."""
    if not text:
        return text
    if scheme := _SCHEME.match(text):
        return text if scheme[0] == text else f"{scheme[0]}..."
    found = head.match(text)
    if found is None or text.startswith("@", found.end()):  # a user, or worse
        return None
    return text if found[0] == text else f"{found[0]}..."
