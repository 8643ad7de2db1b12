"""The HTML of captured mail as a document that does nothing but be looked at.

Three layers, each enough by itself: the frame has no origin and no rights (`sandbox`), its
Content-Security-Policy loads nothing, and the document written here holds nothing that would.
The HTML is taken apart and written anew, balanced and bounded, so that the parser behind nh3
and the browser's read the same; then nh3 lets through only what is on the lists below.

Pictures of the mail itself become data: addresses, remote ones a placeholder. Links keep their
look, lead nowhere, and have their target as tooltip.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

import nh3

from relaygw.web.mail.html_tree import ALLOWED_TAGS
from relaygw.web.mail.html_writer import ATTRIBUTES, SHOW, Link, MailWriter, Removed

MAX_HTML_CHARACTERS = 2 * 2**20
"""How much HTML of a message is shown."""

_PLACED = re.compile(r'src="data:,(\d+)"')
_HARMLESS = nh3.Cleaner(
    tags=set(ALLOWED_TAGS),
    attributes={"*": set(ATTRIBUTES), "img": {"src"}, "a": {"href"}},
    url_schemes={"data"},
    link_rel=None,
)
_BASE_CSS = ":root{color-scheme:light}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MailPage:
    """The document, and what is not in it."""

    document: str
    removed: Removed
    links: tuple[Link, ...]
    is_cut: bool  # more HTML than is shown


def mail_page(source: str, *, title: str, picture: Callable[[str], str | None]) -> MailPage:
    """Return the HTML of a message as a harmless document; never raises.

    `picture` returns the data: address of the part with a Content-ID, None without one.
    """
    writer = MailWriter(picture)
    writer.write(source[:MAX_HTML_CHARACTERS].replace("\0", ""))
    clean = _HARMLESS.clean("".join(writer.out)).translate(SHOW)
    body = _PLACED.sub(writer.placed, clean)
    doctype = "<!doctype html>" if re.match(r"\s*<!doctype", source, re.IGNORECASE) else ""
    document = (
        f"{doctype}<html{writer.html}><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_BASE_CSS}</style>"
        f"<style>{''.join(writer.css)}</style></head><body{writer.body}>{body}</body></html>"
    )
    return MailPage(
        document=document,
        removed=writer.removed,
        links=tuple(writer.links),
        is_cut=writer.is_cut or len(source) > MAX_HTML_CHARACTERS,
    )
