"""Words by which all mail is found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import chain

from relaygw.mail.searchable_text import searchable

_PIECE = re.compile(r"[^\W_]+")
_MAX_WORD_CHARACTERS = 64
_MAX_WORDS_CHARACTERS = 64_000  # of one message: some 2,000 recipients
_MIN_ID_CHARACTERS = 5  # of letters and digits
_SURE_ID_CHARACTERS = 16  # so many need no digit among them
FIELD_END = "\n"
"""Stands between the words of two fields, so that no phrase runs over both."""


def split_words(text: str) -> list[str]:
    """Return the words of a text: what stands between signs that are no letter and no digit."""
    folded = text.lower() if text.isascii() else searchable(text)
    return [word[:_MAX_WORD_CHARACTERS] for word in _PIECE.findall(folded)]


def reply_ids(reply: str) -> Iterator[str]:
    """Yield what may be a provider's own id in its reply: long, mostly with a digit."""
    for part in reply.split():
        letters = "".join(_PIECE.findall(part))
        if len(letters) >= _MIN_ID_CHARACTERS and (
            len(letters) >= _SURE_ID_CHARACTERS or any(map(str.isdigit, letters))
        ):
            yield part


def link_word(value: str) -> str:
    """Return the one word that stands for a whole value of web.link_header, in any case."""
    return "link" + blake2b(searchable(value).encode(), digest_size=8).hexdigest()


def words_of(facts: Iterable[str], addresses: Iterable[str]) -> str:
    """Return all words of a message, each after a blank; of very many addresses the first ones."""
    parts: list[str] = []
    left = _MAX_WORDS_CHARACTERS
    for text in dict.fromkeys(chain(facts, addresses)):
        words = split_words(text)
        if words and left > 0:
            part = " ".join(words)[:left]
            parts.append(part)
            left -= len(part)
    return f" {f' {FIELD_END} '.join(parts)} "
