"""The place in the list of suppressed addresses behind which a page begins, as a word."""

from __future__ import annotations

import base64
import json

from relaygw.mail.suppression import Cause, Suppression

_MAX_CHARACTERS = 4000
_MAX_MS = 2**53


def place_of(suppression: Suppression) -> str:
    """Return the place behind an entry, as a word for an address."""
    text = json.dumps([suppression.created_at_ms, *suppression.key], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_place(word: str, unknown: Exception) -> Suppression | None:
    """Return the entry that a page begins behind, None for the first page.

    Raises `unknown` for what is no place in the list.
    """
    if not word:
        return None
    try:
        if len(word) > _MAX_CHARACTERS:
            raise ValueError
        found = json.loads(base64.urlsafe_b64decode(word + "=" * (-len(word) % 4)).decode())
        at_ms, address, domain, stream = found
        is_sound = isinstance(at_ms, int) and 0 <= at_ms < _MAX_MS
        if not is_sound or not all(_is_text(text) for text in (address, domain, stream)):
            raise ValueError
    except (ValueError, TypeError, RecursionError) as error:
        raise unknown from error
    return Suppression(
        address=address,
        sender_domain=domain,
        stream=stream,
        cause=Cause.MANUAL,
        created_at_ms=at_ms,
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value and value.isprintable()
