"""The words of a message for searches: what its text and its HTML say, and where links lead.

Without what both say alike. As Mailpit does, links are searched too: a test that wants the mail
with a token looks for the token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from relaygw.mail.search import searchable
from relaygw.web.mail.html_text import decode_entities, text_of_html

MAX_WORDS_CHARACTERS = 16_000
_MAX_LINKS_CHARACTERS = 2_000  # of newsletters, whose links are long and many
# possessive: blanks are read once, however many
_LINK = re.compile(
    r"""href\s*+=\s*+["']?\s*+((?:https?|mailto):[^\s"'<>]{1,1000})""", re.IGNORECASE
)


def read_words(text: str, html: str, names: Iterable[str]) -> str:
    """Return what is searched of a message with these bodies and names of attachments."""
    page = searchable(text_of_html(html))[:MAX_WORDS_CHARACTERS]
    lines = [page, *(line for line in _lines(text) if line not in page)]
    lines += [searchable(" ".join(names)), _links(html)]
    return "\n".join(line for line in lines if line)[:MAX_WORDS_CHARACTERS]


def _lines(text: str) -> list[str]:
    return [searchable(line) for line in text[:MAX_WORDS_CHARACTERS].split("\n")]


def _links(html: str) -> str:
    links: dict[str, None] = {}
    left = _MAX_LINKS_CHARACTERS
    for match in _LINK.finditer(html):
        link = searchable(decode_entities(match[1]))
        if link not in links:
            left -= len(link)
            if left < 0:
                break
            links[link] = None
    return " ".join(links)
