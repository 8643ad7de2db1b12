"""What stands in the place of a picture that is not loaded: a hatched field with its text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from urllib.parse import quote

_MAX_LABEL = 40
_CHARACTER_PX = 7
_NUMBER = re.compile(r"\s*(\d{1,4})(?:px)?\s*$")
_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
    '<defs><pattern id="p" width="8" height="8" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="8" height="8" fill="#f3f5f8"/>'
    '<rect width="4" height="8" fill="#e7ebf1"/></pattern></defs>'
    '<rect width="100%" height="100%" fill="url(#p)" stroke="#a3adbb" stroke-width="2" '
    'stroke-dasharray="4 3"/><text x="50%" y="50%" dy=".35em" text-anchor="middle" '
    'font-family="sans-serif" font-size="11" fill="#4c5666">{label}</text></svg>'
)


def placeholder(attributes: Mapping[str, str]) -> str:
    """Return the data: address of a field of the picture's size that shows its `alt` text.

    Safe in an attribute in double quotes. A picture of a few pixels stays as small.
    """
    width, height = _pixels(attributes.get("width")), _pixels(attributes.get("height"))
    text = " ".join(attributes.get("alt", "").split())
    label = text if len(text) <= _MAX_LABEL else text[: _MAX_LABEL - 1] + "…"
    wanted = _CHARACTER_PX * len(label) + 24
    if (width is not None and width < wanted) or (height is not None and height < 16):
        label = ""
    svg = _SVG.format(
        width=width if width is not None else max(wanted, 48),
        height=height if height is not None else 32,
        label=escape(label),
    )
    return "data:image/svg+xml," + quote(svg, safe=" =:/();.,-")


def _pixels(value: str | None) -> int | None:
    match = _NUMBER.match(value or "")
    return int(match[1]) if match else None
