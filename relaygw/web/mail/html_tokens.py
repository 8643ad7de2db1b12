"""HTML cut into tags and text, one after another, as mail has it: broken, old or hostile.

Reads each character a bounded number of times; no recursion, nothing raised. Comments,
declarations and processing instructions are passed over. What stands in an element whose
content is no HTML (a script, a title) comes as one token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from relaygw.web.mail.html_text import decode_entities

MAX_ATTRIBUTES = 100
MAX_WASTED_CHARACTERS = 2**21
"""How much is read for tags that turn out to be none, before the rest is left out."""

RAW_ELEMENTS = frozenset(
    {"script", "style", "title", "textarea", "xmp", "iframe", "noembed", "noframes", "template",
     "svg", "math", "select", "audio", "video", "object", "applet"}
)  # fmt: skip
"""Elements whose content is passed over as a whole, with the tags in it."""

# quotes may hold "<" and ">"; a missing one takes the rest, as browsers do
_ATTRIBUTES = re.compile(r"""(?:[^<>"']|"[^"]*+"?|'[^']*+'?)*+""")
_START = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9:_-]{0,40})")
_ATTRIBUTE = re.compile(
    r"""([^\s"'<>/=]+)(?:\s*=\s*("[^"]*"?|'[^']*'?|[^\s"'>][^\s>]*))?""", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag; `raw` is what a raw element holds, up to its end tag."""

    name: str
    is_end: bool
    source: str  # of its attributes
    raw: str = ""

    def attributes(self) -> dict[str, str]:
        """Return the attributes in lower case, the first of each name, entities decoded."""
        found: dict[str, str] = {}
        for match in islice(_ATTRIBUTE.finditer(self.source), MAX_ATTRIBUTES):
            value = match[2] or ""
            if value[:1] in ("'", '"'):
                value = value[1:].removesuffix(value[0])
            found.setdefault(match[1].lower(), decode_entities(value))
        return found


def tokens(page: str) -> Iterator[Tag | str]:
    """Yield tags and pieces of text in their order; entities in text are decoded."""
    position, wasted = 0, 0
    while position < len(page):
        start = page.find("<", position)
        if start < 0:
            start = len(page)
        if start > position:
            yield decode_entities(page[position:start])
        if start == len(page):
            return
        tag, position = _tag_at(page, start)
        if tag is not None:
            yield tag
        elif page[start + 1 : start + 2].isalpha() or page[start + 1 : start + 2] == "/":
            wasted += position - start
            if wasted > MAX_WASTED_CHARACTERS:
                return
            yield "<"
            position = start + 1
        elif position == start + 1:
            yield "<"


def _tag_at(page: str, start: int) -> tuple[Tag | None, int]:
    """Return the tag that starts at `start` and where it ends; else None and what was read."""
    if page.startswith("<!--", start):
        end = page.find("-->", start + 4)
        return None, len(page) if end < 0 else end + 3
    if page[start + 1 : start + 2] in ("!", "?"):
        end = page.find(">", start)
        return None, len(page) if end < 0 else end + 1
    head = _START.match(page, start)
    if head is None:
        return None, start + 1
    match = _ATTRIBUTES.match(page, head.end())
    end = match.end() if match is not None else head.end()
    if page[end : end + 1] != ">":
        return None, end
    name = head[2].lower()
    source = page[head.end() : end]
    if head[1] or name not in RAW_ELEMENTS or (source.endswith("/") and name in ("svg", "math")):
        return Tag(name, bool(head[1]), source), end + 1
    close = re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE).search(page, end + 1)
    if close is None:  # the rest, as browsers do
        return Tag(name, False, source, page[end + 1 :]), len(page)
    after = page.find(">", close.end())
    return (
        Tag(name, False, source, page[end + 1 : close.start()]),
        len(page) if after < 0 else after + 1,
    )
