"""The words of an HTML page, for snippets and for mail without a plain text.

Not a renderer and no sanitiser: what comes out is text and is served as text. Reads each
character once, however broken the page is.
"""

from __future__ import annotations

import re
from html import unescape

# "<" ends a tag too, so that a page of nothing but "<" is read once and not once a "<"
_TOKEN = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)?([^<>]*)>|([^<]+)|<")
_UNSEEN = frozenset({"script", "style", "head", "title", "template"})
_BREAKS = frozenset(
    "address article blockquote br dd div dl dt footer form h1 h2 h3 h4 h5 h6 header hr li ol p "
    "pre section table td th tr ul".split()
)
_BLANKS = re.compile(r"[^\S\n]+")
_BLANK_LINES = re.compile(r" ?\n[ \n]*\n ?| ?\n ?")


def text_of_html(page: str) -> str:
    """Return the words of `page`, a line for each block."""
    words: list[str] = []
    unseen = ""
    for match in _TOKEN.finditer(page):
        closing, name, _, text = match.groups()
        tag = (name or "").lower()
        if unseen:
            if closing and tag == unseen:
                unseen = ""
        elif text is not None:
            words.append(_BLANKS.sub(" ", text.replace("\n", " ")))
        elif not closing and tag in _UNSEEN:
            unseen = tag
        elif tag in _BREAKS:
            words.append("\n")
    text = unescape("".join(words)).replace("\xa0", " ")
    return _BLANK_LINES.sub("\n", text).strip()
