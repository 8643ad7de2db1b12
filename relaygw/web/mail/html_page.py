"""The HTML of a message as a document that does nothing but be looked at.

Three layers, each enough by itself: the frame has no origin and no rights (`sandbox`), its
Content-Security-Policy loads nothing, and the document written here holds nothing that would.
The HTML is taken apart and written anew, balanced and bounded, so that the parser behind nh3
and the browser's read the same; then nh3 lets through only what is on the lists below.

Pictures of the mail itself become data: addresses, remote ones a placeholder. Links keep their
look, lead nowhere, and have their target as tooltip.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from html import escape

import nh3

from relaygw.store.queue_entry import QueueEntry
from relaygw.web.mail.html_syntax import ALLOWED_TAGS
from relaygw.web.mail.html_writer import ATTRIBUTES, SHOW, Link, MailWriter, Removed
from relaygw.web.mail.mime_tree import MimeTree, Part, filed_ids
from relaygw.web.mail.parts import pictures_of

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


class MailPages:
    """HTML of messages as documents, the last ones kept: a page and its frame both need it."""

    def __init__(self, *, limit_characters: int) -> None:
        self._limit = limit_characters
        self._kept: OrderedDict[str, MailPage] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, queue_id: str) -> MailPage | None:
        """Return what is kept of a message, or None."""
        with self._lock:
            return self._kept.get(queue_id)

    def make(self, entry: QueueEntry, tree: MimeTree) -> MailPage | None:
        """Return the HTML of a message as a document, None if it has none."""
        kept = self.get(entry.queue_id)
        part = html_part(tree)
        if kept is not None or part is None:
            return kept
        source, is_cut = tree.text(part, limit_characters=MAX_HTML_CHARACTERS)
        page = mail_page(source, title=entry.subject, picture=pictures_of(tree))
        page = replace(page, is_cut=page.is_cut or is_cut)
        with self._lock:
            self._kept[entry.queue_id] = page
            while sum(len(one.document) for one in self._kept.values()) > self._limit:
                self._kept.popitem(last=False)
        return page


def html_part(tree: MimeTree) -> Part | None:
    """Return the part that is the HTML of a message."""
    filed = filed_ids(tree)
    pages = [one for one in tree.leaves if one.is_body and one.content_type == "text/html"]
    return min(pages, key=lambda one: one.part_id in filed, default=None)
