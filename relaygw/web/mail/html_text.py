"""The words of an HTML page, for snippets and for mail without a plain text.

Not a renderer and no sanitiser: what comes out is text and is served as text. Reads each
character once, however broken the page is.
"""

from __future__ import annotations

import re
from html import unescape

# "<" ends a tag too, so that a page of nothing but "<" is read once and not once a "<"
_TOKEN = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*+)?+[^<>]*+>|([^<]+|<)")
_LONG_NUMBER = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9a-fA-F]{8,});?")
_UNSEEN = frozenset({"script", "style", "head", "title", "template"})
_BREAK = re.compile(
    "address|article|blockquote|br|d[dlt]|div|footer|form|h[1-6r]|header|li|ol|p|pre|section|"
    "t[dhr]|table|ul"
)


def decode_entities(text: str) -> str:
    """Return `text` without entities; numbers that are no characters become U+FFFD."""
    # Python refuses to read a number of thousands of digits
    return unescape(_LONG_NUMBER.sub("\ufffd", text)) if "&" in text else text


def text_of_html(page: str) -> str:
    """Return the words of `page`, a line for each block."""
    words: list[str] = []
    unseen = ""
    for match in _TOKEN.finditer(page):
        closing, name, text = match.groups()
        tag = (name or "").lower()
        if unseen:
            if closing and tag == unseen:
                unseen = ""
        elif text is not None:
            words.append(text.replace("\n", " "))
        elif not closing and tag in _UNSEEN:
            unseen = tag
        elif _BREAK.fullmatch(tag):
            words.append("\n")
    lines = (" ".join(line.split()) for line in decode_entities("".join(words)).split("\n"))
    return "\n".join(line for line in lines if line)
