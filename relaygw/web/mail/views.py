"""What a page shows of the content of a message: links, text, header, source, each within a limit.

Links are listed with their real targets; none is ever fetched.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from relaygw.web import words
from relaygw.web.mail.html_page import MAX_LINKS, Link, MailPage, Removed, html_part
from relaygw.web.mail.mime_header import decode_text, decode_words
from relaygw.web.mail.mime_tree import MimeTree, Part, file_name_of, filed_ids, filed_parts
from relaygw.web.mail.text import text_of_html, texts_of

VIEWS = ("html", "text", "headers", "links", "parts", "source")
MAX_TEXT_CHARACTERS = 512 * 1024
MAX_SOURCE_BYTES = 256 * 1024
MAX_HEADER_BYTES = 256 * 1024
MAX_LISTED_FIELDS = 500

_IN_TEXT = re.compile(r"\bhttps?://[^\s<>\"'\x00-\x1f]{1,4000}", re.IGNORECASE)
_TRAILING = ".,;:!?)]}>"
_LOOKS_LIKE_HOST = re.compile(r"(?:https?://)?((?:[a-z0-9-]+\.)+[a-z]{2,})(?:[:/?#]\S*)?", re.I)


MAX_LISTED_PARTS = 200
_NOT_LOADED = {"images": "remote image", "sheets": "style sheet"}
_TAKEN_OUT = {"scripts": "script", "forms": "form", "frames": "embedded object"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedLink:
    """A link as the page lists it."""

    target: str
    text: str
    where: str  # HTML, text or header
    number: int  # how often it is there
    is_web: bool  # http or https, so that a browser may open it when somebody wants to
    warning: str


def listed_links(
    html: Iterable[Link], text: str, unsubscribe: Iterable[str]
) -> tuple[list[ListedLink], bool]:
    """Return the links, each once, and whether there are more than are listed."""
    found = Counter(
        [
            *((link.target, link.text, "HTML") for link in html),
            *((one[0].rstrip(_TRAILING), "", "text") for one in _IN_TEXT.finditer(text)),
            *((target, "List-Unsubscribe", "header") for target in unsubscribe),
        ]
    )
    lines = []
    for (target, said, where), number in islice(found.items(), MAX_LINKS):
        host = _host(target)
        line = ListedLink(
            target=target,
            text=said,
            where=where,
            number=number,
            is_web=host is not None,
            warning=_warning(target, said, host),
        )
        lines.append(line)
    return lines, len(found) > MAX_LINKS


def _host(target: str) -> str | None:
    """Return the host of a web address in lower case, None of anything else."""
    try:
        parts = urlsplit(target)
        host = parts.hostname
    except ValueError:
        return None
    return host if parts.scheme in ("http", "https") and host else None


def _warning(target: str, text: str, host: str | None) -> str:
    scheme = target.partition(":")[0].lower()
    if scheme in ("javascript", "vbscript", "data"):
        return "a script or data, not an address"
    if host is None:
        return "" if scheme in ("mailto", "tel", "sms") else "no whole address"
    shown = _LOOKS_LIKE_HOST.fullmatch(text.strip())
    if shown and shown[1].lower().removeprefix("www.") != host.removeprefix("www."):
        return f"shows {shown[1]}, leads to {host}"
    return ""


@dataclass(frozen=True, slots=True)
class Shown:
    """A text, and what is not in it (for people, "" if nothing)."""

    text: str
    left_out: str = ""


def _plain_text(tree: MimeTree) -> Shown | None:
    """Return the plain text of a message; of alternatives the first, else all. None without."""
    filed = filed_ids(tree)
    parts = [
        one
        for one in tree.leaves
        if one.is_body and one.content_type == "text/plain" and one.part_id not in filed
    ]
    if not parts:
        return None
    if tree.root.content_type == "multipart/alternative":
        parts = parts[:1]
    pieces, is_cut = texts_of(tree, parts, limit_characters=MAX_TEXT_CHARACTERS)
    what = f"The text goes on: {MAX_TEXT_CHARACTERS:,} characters of it are shown."
    return Shown("\n\n".join(pieces), what if is_cut else "")


def _text_of_page(tree: MimeTree) -> Shown:
    part = html_part(tree)
    if part is None:
        return Shown("")
    source, is_cut = tree.text(part, limit_characters=MAX_TEXT_CHARACTERS)
    what = f"The HTML goes on: the words of {MAX_TEXT_CHARACTERS:,} characters are shown."
    return Shown(text_of_html(source), what if is_cut else "")


def _as_it_is(raw: bytes, limit_bytes: int, what: str) -> Shown:
    text = decode_text(raw[:limit_bytes], "utf-8").replace("\r\n", "\n")
    goes_on = f"The {what} goes on: {limit_bytes:,} of {len(raw):,} bytes are shown."
    return Shown(text, goes_on if len(raw) > limit_bytes else "")


def _counted(removed: Removed, nouns: Mapping[str, str], glue: str) -> str:
    numbers = ((getattr(removed, name), noun) for name, noun in nouns.items())
    return glue.join(words.counted(number, noun) for number, noun in numbers if number)


def view_context(view: str, tree: MimeTree, page: MailPage | None) -> dict[str, Any]:
    """Return what one of VIEWS shows, and how many links and parts there are."""
    text = _plain_text(tree)
    unsubscribe = _unsubscribe(tree)
    links, has_more = listed_links(
        page.links if page is not None else (), text.text if text is not None else "", unsubscribe
    )
    parts = part_lines(tree)
    shown: dict[str, Any] = {
        "links": links,
        "has_more_links": has_more,
        "parts": parts[:MAX_LISTED_PARTS],
        "parts_left": max(0, len(parts) - MAX_LISTED_PARTS),
        "left_out": tree.left_out,
    }
    match view:
        case "html" if page is not None:
            shown |= {
                "not_loaded": _counted(page.removed, _NOT_LOADED, " and "),  # "": nothing
                "taken_out": _counted(page.removed, _TAKEN_OUT, ", "),
                "is_cut": page.is_cut,
            }
        case "text":
            shown |= {"is_from_html": text is None, "text": text or _text_of_page(tree)}
        case "headers":
            fields = [
                (name, decode_words(value)) for name, value in tree.fields[:MAX_LISTED_FIELDS]
            ]
            header = tree.content[: tree.root.start]
            shown |= {"fields": fields, "raw": _as_it_is(header, MAX_HEADER_BYTES, "header")}
        case "source":
            shown |= {"source": _as_it_is(tree.content, MAX_SOURCE_BYTES, "source")}
    return shown


def part_lines(tree: MimeTree) -> list[dict[str, Any]]:
    """Return attachments, then inline parts."""
    inline, attachments = filed_parts(tree)
    return [
        {
            "part_id": part.part_id,
            "name": file_name_of(part),
            "content_type": part.content_type,
            "size": words.size(_decoded_bytes(tree, part)),
            "is_inline": is_inline,
        }
        for parts, is_inline in ((attachments, False), (inline, True))
        for part in parts
    ]


def _decoded_bytes(tree: MimeTree, part: Part) -> int:
    """Return about how large a part is; nothing is decoded for that."""
    raw = part.end - part.start
    if part.encoding != "base64":
        return raw
    letters = raw - 2 * tree.content.count(b"\r\n", part.start, part.end)
    padding = tree.content.count(b"=", max(part.start, part.end - 4), part.end)
    return max(0, letters * 3 // 4 - padding)


def _unsubscribe(tree: MimeTree) -> list[str]:
    value = decode_words(tree.first("List-Unsubscribe"))
    return [word.strip("<> ") for word in value.split(",") if word.strip("<> ")][:10]
