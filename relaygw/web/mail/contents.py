"""What a page shows of the content of a message, each view within its limit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace

from relaygw.store.protocol import QueueEntry
from relaygw.web.mail.cut_text import cut_text
from relaygw.web.mail.html_page import MAX_HTML_CHARACTERS, MailPage, mail_page
from relaygw.web.mail.html_text import text_of_html
from relaygw.web.mail.html_writer import Removed
from relaygw.web.mail.mime_header import decode_text, decode_words
from relaygw.web.mail.mime_tree import MimeTree, Part
from relaygw.web.mail.parts import pictures_of
from relaygw.web.sandbox.message_view import filed_parts
from relaygw.web.words import counted

MAX_TEXT_CHARACTERS = 512 * 1024
MAX_SOURCE_BYTES = 256 * 1024
MAX_HEADER_BYTES = 256 * 1024
MAX_LISTED_FIELDS = 500


@dataclass(frozen=True, slots=True)
class Shown:
    """A text, and what is not in it (for people, "" if nothing)."""

    text: str
    left_out: str = ""


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
        source, is_cut = cut_text(tree, part, limit_characters=MAX_HTML_CHARACTERS)
        page = mail_page(source, title=entry.subject, picture=pictures_of(tree))
        page = replace(page, is_cut=page.is_cut or is_cut)
        with self._lock:
            self._kept[entry.queue_id] = page
            while sum(len(one.document) for one in self._kept.values()) > self._limit:
                self._kept.popitem(last=False)
        return page


def html_part(tree: MimeTree) -> Part | None:
    """Return the part that is the HTML of a message."""
    filed = _filed(tree)
    pages = [one for one in tree.leaves if one.is_body and one.content_type == "text/html"]
    return min(pages, key=lambda one: one.part_id in filed, default=None)


def plain_text(tree: MimeTree) -> Shown | None:
    """Return the plain text of a message; of alternatives the first, else all. None without."""
    filed = _filed(tree)
    parts = [
        one
        for one in tree.leaves
        if one.is_body and one.content_type == "text/plain" and one.part_id not in filed
    ]
    if not parts:
        return None
    if tree.root.content_type == "multipart/alternative":
        parts = parts[:1]
    pieces: list[str] = []
    left, is_cut = MAX_TEXT_CHARACTERS, False
    for part in parts:
        text, is_cut = cut_text(tree, part, limit_characters=left)
        pieces.append(text)
        left -= len(text)
        if is_cut or not left:
            break
    what = f"The text goes on: {MAX_TEXT_CHARACTERS:,} characters of it are shown."
    return Shown("\n\n".join(pieces), what if is_cut else "")


def text_of_page(tree: MimeTree) -> Shown:
    """Return the words of a message's HTML, for one without a plain text."""
    part = html_part(tree)
    if part is None:
        return Shown("")
    source, is_cut = cut_text(tree, part, limit_characters=MAX_TEXT_CHARACTERS)
    what = f"The HTML goes on: the words of {MAX_TEXT_CHARACTERS:,} characters are shown."
    return Shown(text_of_html(source), what if is_cut else "")


def decoded_fields(tree: MimeTree) -> list[tuple[str, str]]:
    """Return the fields of the header for people."""
    return [(name, decode_words(value)) for name, value in tree.fields[:MAX_LISTED_FIELDS]]


def raw_header(tree: MimeTree) -> Shown:
    """Return the header as it came."""
    return _as_it_is(tree.content[: tree.root.start], MAX_HEADER_BYTES, "header")


def source(tree: MimeTree) -> Shown:
    """Return the start of the source."""
    return _as_it_is(tree.content, MAX_SOURCE_BYTES, "source")


def _as_it_is(raw: bytes, limit_bytes: int, what: str) -> Shown:
    text = decode_text(raw[:limit_bytes], "utf-8").replace("\r\n", "\n")
    goes_on = f"The {what} goes on: {limit_bytes:,} of {len(raw):,} bytes are shown."
    return Shown(text, goes_on if len(raw) > limit_bytes else "")


def removed_words(removed: Removed) -> tuple[str, str]:
    """Return what of the HTML was not loaded, and what was taken out, "" for nothing."""
    not_loaded = [
        counted(number, noun)
        for number, noun in ((removed.images, "remote image"), (removed.sheets, "style sheet"))
        if number
    ]
    taken_out = [
        counted(number, noun)
        for number, noun in (
            (removed.scripts, "script"),
            (removed.forms, "form"),
            (removed.frames, "embedded object"),
        )
        if number
    ]
    return " and ".join(not_loaded), ", ".join(taken_out)


def _filed(tree: MimeTree) -> frozenset[str]:
    inline, attachments = filed_parts(tree)
    return frozenset(part.part_id for part in (*inline, *attachments))
