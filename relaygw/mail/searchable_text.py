"""Text as it is stored and looked for."""

from __future__ import annotations

import re
import unicodedata

# what Mailpit puts a blank for, and what SQL or UTF-8 would stumble over
_BETWEEN_WORDS = re.compile(r'[\s\x00-\x1f\x7f-\x9f<>",;()\ud800-\udfff]+')
# soft hyphens, joiners and marks of direction: nobody sees them, newsletters are full of them
_UNSEEN = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]+")
# Unicode puts the marks of a letter in order in a time that grows with the square of their number
_MANY_SIGNS = re.compile(r"([^\w\x00-\x7f]{64})[^\w\x00-\x7f]++")


def few_signs(text: str) -> str:
    """Return a text with at most 64 marks and signs in a row, for what normalises it."""
    return _MANY_SIGNS.sub(r"\1", text)


def searchable(text: str) -> str:
    """Return text as it is stored and looked for: folded case, one blank between words."""
    folded = unicodedata.normalize("NFC", few_signs(_UNSEEN.sub("", text)).casefold())
    return _BETWEEN_WORDS.sub(" ", unicodedata.normalize("NFC", folded.casefold())).strip()


tag_key = searchable  # returns what two spellings of one tag have in common
