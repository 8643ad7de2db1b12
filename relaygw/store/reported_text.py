"""What providers report, in a form that every database takes."""

from __future__ import annotations

import hashlib

_MAX_KEY_CHARACTERS = 200  # a longer one is hashed: an index takes 2,700 bytes at most


def short_key(key: str) -> str:
    """Return a key that an index takes, and the same for the same."""
    if clean(key) == key and len(key) <= _MAX_KEY_CHARACTERS:
        return key
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def clean(text: str) -> str:
    """Return text that every database takes: JSON may hold NUL and halves of characters."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def past(at_ms: int, now_ms: int) -> int:
    """Return the time of something that has happened, whatever a provider's clock says."""
    return min(max(at_ms, 0), now_ms)
