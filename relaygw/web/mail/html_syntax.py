"""HTML and CSS as mail has them, broken, old or hostile: tags and text balanced, CSS filtered.

Reads each character a bounded number of times; no recursion, nothing raised. Browsers close and
reopen elements on their own, at a cost that mail can drive up by the square; balanced and within
limits it costs what its length says. Rules as in the HTML standard's section on tree construction,
as far as mail in use needs them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from relaygw.web.mail.text import decode_entities

MAX_ATTRIBUTES = 100
MAX_WASTED_CHARACTERS = 2**21  # read for tags that are none, before the rest is left out

RAW_ELEMENTS = frozenset(  # their content is passed over as a whole, with the tags in it
    {"script", "style", "title", "textarea", "xmp", "iframe", "noembed", "noframes", "template",
     "svg", "math", "select", "audio", "video", "object", "applet"}
)  # fmt: skip

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


MAX_DEPTH = 200
MAX_FORMATTING = 10  # open at once; each may be written again for each paragraph

VOID_TAGS = frozenset({"area", "br", "col", "hr", "img", "wbr"})
_FORMATTING = frozenset(
    {"a", "b", "big", "code", "em", "font", "i", "s", "small", "strike", "strong", "tt", "u"}
)
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_BLOCKS = _HEADINGS | {
    "address", "article", "aside", "blockquote", "center", "dd", "details", "dir", "div", "dl",
    "dt", "figcaption", "figure", "footer", "header", "hr", "li", "main", "menu", "nav", "ol",
    "p", "pre", "section", "summary", "table", "ul",
}  # fmt: skip
_TABLE = frozenset({"caption", "colgroup", "table", "tbody", "td", "tfoot", "th", "thead", "tr"})
_INLINE = frozenset(
    {"abbr", "acronym", "bdi", "bdo", "cite", "del", "dfn", "ins", "kbd", "mark", "q", "rp", "rt",
     "ruby", "samp", "span", "sub", "sup", "time", "var"}
)  # fmt: skip
ALLOWED_TAGS = VOID_TAGS | _FORMATTING | _BLOCKS | _TABLE | _INLINE

_CELLS = frozenset({"caption", "td", "th"})
_ROWS = _CELLS | {"tr"}
_GROUPS = _ROWS | {"colgroup", "tbody", "tfoot", "thead"}
# what a start tag closes, and what shields from it besides tables and their cells
_CLOSES: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "li": (frozenset({"li"}), frozenset({"ul", "ol", "menu", "dir"})),
    "dd": (frozenset({"dd", "dt"}), frozenset({"dl"})),
    "dt": (frozenset({"dd", "dt"}), frozenset({"dl"})),
    "td": (_CELLS, frozenset({"tr"})),
    "th": (_CELLS, frozenset({"tr"})),
    "tr": (_ROWS, frozenset({"tbody", "tfoot", "thead"})),
    **dict.fromkeys(
        ("tbody", "tfoot", "thead", "caption", "colgroup", "col"), (_GROUPS, frozenset())
    ),
    "a": (frozenset({"a"}), frozenset()),
}


class Balance:
    """Writes tags to `out` so that each start tag has its end tag."""

    def __init__(self, out: list[str]) -> None:
        self._out = out
        self._open: list[str] = []
        self._formatting = 0
        self.is_too_deep = False  # a tag was left out

    def start(self, name: str, attributes: str) -> None:
        """Write a start tag, and the end tags of what it closes."""
        self._make_room(name)
        is_formatting = name in _FORMATTING
        if len(self._open) >= MAX_DEPTH or (is_formatting and self._formatting >= MAX_FORMATTING):
            self.is_too_deep = True
            return
        self._open.append(name)
        self._formatting += is_formatting
        self._out.append(f"<{name}{attributes}>")

    def void(self, name: str, attributes: str) -> None:
        """Write the tag of an element without content."""
        self._make_room(name)
        self._out.append(f"<{name}{attributes}>")

    def end(self, name: str) -> None:
        """Write an end tag and those of what is open within; nothing if `name` is not open."""
        if name in VOID_TAGS:
            if name == "br":  # as browsers read it
                self._out.append("<br>")
            return
        names = _HEADINGS if name in _HEADINGS else frozenset({name})
        shields = frozenset({"table"}) if name in _TABLE else _CELLS | {"table"}
        self._close(names, shields - names)

    def close_all(self) -> None:
        """Write the end tags of all that is open."""
        self._pop_to(0)

    def _make_room(self, name: str) -> None:
        if name in _BLOCKS:
            self._close(frozenset({"p"}), _CELLS | {"table"})
        if name in _CLOSES:
            closed, shields = _CLOSES[name]
            self._close(closed, shields | {"table"} | (_CELLS - closed), is_outermost=True)

    def _close(
        self, names: frozenset[str], shields: frozenset[str], *, is_outermost: bool = False
    ) -> None:
        """Close the innermost, or the outermost, of `names` within the innermost of `shields`."""
        found = len(self._open)
        for place in range(len(self._open) - 1, -1, -1):
            if self._open[place] in names:
                found = place
            if self._open[place] in shields or (found == place and not is_outermost):
                break
        self._pop_to(found)

    def _pop_to(self, depth: int) -> None:
        while len(self._open) > depth:
            name = self._open.pop()
            self._formatting -= name in _FORMATTING
            self._out.append(f"</{name}>")


# an escape of CSS, "\75 " or "\u": hides letters, but is needed for bullets and hacks as "\9"
_ESCAPE = re.compile(r"\\(?:([0-9a-fA-F]{1,6})[ \t\r\n\f]?|([^0-9a-fA-F\r\n\f]))")
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_IMPORT = re.compile(r"@\s*import[^;{}]*;?", re.IGNORECASE)
_URL = re.compile(r"""url\(\s*("[^"]*"|'[^']*'|[^)]*)\s*\)?""", re.IGNORECASE)
# what else takes addresses, up to the end of the declaration
_LOADING = re.compile(
    r"\b(?:(?:-webkit-)?(?:image-set|cross-fade)|src|image|element|expression)\s*\([^;{}]*|"
    r"\b(?:behavior|-moz-binding)\s*:[^;{}]*",
    re.IGNORECASE,
)
_TAG = re.compile(r"<(?![\s=0-9])")  # no comparison of a media query
_HARMLESS_URL = re.compile(r"data:image/(?:png|gif|jpe?g|webp|bmp|avif)[;,]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FilteredCss:
    """A style sheet or style attribute that loads nothing, and what was taken out."""

    css: str
    images: int  # addresses of pictures and fonts
    sheets: int  # imported style sheets


def filter_css(css: str) -> FilteredCss:
    """Return `css` without anything that loads, for a style element; in an attribute escape it."""
    images = 0

    def replace_url(match: re.Match[str]) -> str:
        nonlocal images
        target = match[1].strip("\"' \t\r\n\f")
        if _HARMLESS_URL.match(target):
            return 'url("' + re.sub(r"""["'\\\s<>()]""", "", target) + '")'
        images += bool(target) and not target.startswith(("data:", "#"))
        return "url()"

    css = _COMMENT.sub("", _ESCAPE.sub(_unescaped, css))
    css, sheets = _IMPORT.subn("", css)
    css = _URL.sub(replace_url, css)
    css, others = _LOADING.subn("none", css)
    return FilteredCss(_TAG.sub("", css.replace("\0", "")), images + others, sheets)


def _unescaped(match: re.Match[str]) -> str:
    digits, sign = match.groups()
    if digits is None:
        return sign if sign.isascii() and sign.isalpha() else match[0]
    code = int(digits, 16)
    letter = chr(code) if code < 0x80 else ""
    return letter if letter.isalpha() or letter in tuple("@(-:") else match[0]
