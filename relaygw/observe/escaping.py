"""Text from outside on its way into one line of a log."""

from __future__ import annotations

MAX_TEXT_CHARACTERS = 2000
"""What a line shows of one free text; the rest is cut off."""


def escape(text: str) -> str:
    """Return `text` with everything spelled out that is not to be seen.

    That is control characters, line ends of any kind, marks that turn the direction of
    text, and halves of characters. What is left is printable and stays on its line.
    """
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def cut(text: str) -> str:
    """Return `text`, or its beginning where it is longer than a line should be."""
    if len(text) <= MAX_TEXT_CHARACTERS:
        return text
    return f"{text[:MAX_TEXT_CHARACTERS]}..."
