"""Style sheets of captured mail with all that loads something taken out.

The frame's Content-Security-Policy already loads nothing; this is what still holds when the
document is opened by something that does not know that policy. It is a filter over text, not a
parser of CSS: what might load is replaced, whether or not it stands where it would. Each
character is looked at a bounded number of times.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

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
    """Return `css` without anything that loads; it may stand in a style element.

    In an attribute it still has to be escaped.
    """
    images = 0

    def replace_url(match: re.Match[str]) -> str:
        nonlocal images
        target = match[1].strip("\"' \t\r\n\f")
        if _HARMLESS_URL.match(target):
            return f'url("{_without_quotes(target)}")'
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


def _without_quotes(target: str) -> str:
    return re.sub(r"""["'\\\s<>()]""", "", target)
