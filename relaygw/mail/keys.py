"""Keys of several parts, as columns and labels hold them: one text, its parts set apart by blanks.

Only the last part may have blanks of its own. No other place takes such a text apart.
"""

from __future__ import annotations


def packed(*parts: str) -> str:
    """Return the key of these parts."""
    return " ".join(parts)


def unpacked(key: str, number: int = 2) -> list[str]:
    """Return so many parts of a key; those that it lacks are empty."""
    parts = key.split(" ", number - 1)
    return [*parts, *[""] * (number - len(parts))]
