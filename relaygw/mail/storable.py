"""Text that every database and every encoding takes."""

from __future__ import annotations

import re

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def unstorable_sign(text: str) -> str | None:
    """Return the first NUL (PostgreSQL has none) or half of a surrogate pair (UTF-8 has none)."""
    found = _UNSTORABLE.search(text)
    return None if found is None else found[0]
