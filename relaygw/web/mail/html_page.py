"""The HTML of a message as a document that does nothing but be looked at: decision 13."""

from __future__ import annotations

import base64
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from relaygw.mail.mime_header import decode_words
from relaygw.mail.mime_tree import MimeTree, Part
from relaygw.store.queue_entry import QueueEntry
from relaygw.web.mail.html_syntax import ALLOWED_TAGS, VOID_TAGS, Balance, Tag, filter_css, tokens
from relaygw.web.mail.parts import filed_ids

if TYPE_CHECKING:
    import nh3

MAX_HTML_CHARACTERS = 2 * 2**20  # how much HTML of a message is shown
MAX_TAGS = 15_000
MAX_CSS_CHARACTERS = 256 * 1024
MAX_LINKS = 500
ATTRIBUTES = frozenset(  # what may stand on any element
    {"abbr", "align", "alt", "bgcolor", "border", "cellpadding", "cellspacing", "class", "clear",
     "color", "colspan", "compact", "datetime", "dir", "face", "headers", "height", "hspace", "id",
     "lang", "noshade", "nowrap", "reversed", "role", "rowspan", "scope", "size", "span", "start",
     "style", "summary", "title", "type", "valign", "value", "vspace", "width"}
)  # fmt: skip

# While nh3 works, these noncharacters stand for what is an entity in its input or output: it
# takes time by the square of their number.
_MARKS = {"&": "\ufdd0", "<": "\ufdd1", '"': "\ufdd2", ">": "\ufdd3", "\xa0": "\ufdd4"}
HIDE = str.maketrans(_MARKS | dict.fromkeys(_MARKS.values(), "\ufffd"))
SHOW = str.maketrans({mark: escape(sign) for sign, mark in _MARKS.items()})

MAX_PICTURE_BYTES = 2 * 2**20  # of one picture in its HTML
MAX_PICTURES_BYTES = 8 * 2**20  # of all of them
_PICTURES = frozenset(
    {"image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp", "image/avif",
     "image/svg+xml"}
)  # fmt: skip
_MAX_LINK_TEXT = 200
_MAX_TARGET = 4000
_MAX_VALUE = 10_000
_ROOT_ATTRIBUTES = ATTRIBUTES | {"text", "link", "leftmargin", "topmargin"}
_PICTURE = re.compile(r"data:image/(?:png|gif|jpe?g|webp|bmp|avif|svg\+xml)[;,]", re.IGNORECASE)
_PLACED = re.compile(r'src="data:,(\d+)"')
_BASE_CSS = ":root{color-scheme:light}"
_BOTH_CSS = ":root{color-scheme:light dark}"
SCHEMES = ("light", "dark")
# what mail asks for its colours by; looked for in the head of a document only
_ASKED = re.compile(r"\(\s*+prefers-color-scheme\s*+(?::\s*+([a-z-]*+)\s*+)?+\)", re.IGNORECASE)
_DECLARED = re.compile(r"(?<![\w-])color-scheme\s*:\s*([a-z\s]*)", re.IGNORECASE)
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


@dataclass(frozen=True, slots=True)
class Link:
    """A link of a message: where it leads, and what it says of itself."""

    target: str
    text: str


@dataclass(slots=True)
class Removed:
    """What was taken out of the HTML of a message."""

    images: int = 0  # remote ones
    sheets: int = 0
    scripts: int = 0  # and attributes that are scripts
    forms: int = 0
    frames: int = 0  # and objects, sounds, films


@dataclass(frozen=True, slots=True, kw_only=True)
class MailPage:
    """The document, and what is not in it."""

    document: str  # in it the browser decides between light and dark
    head_characters: int  # of the document: up to the content of its body
    removed: Removed
    links: tuple[Link, ...]
    is_cut: bool  # more HTML than is shown

    def in_scheme(self, scheme: str) -> str:
        """Return the document as a browser shows it that prefers one of SCHEMES."""

        def answer(match: re.Match[str]) -> str:
            return "(min-width:0)" if (match[1] or scheme).lower() == scheme else "(max-width:0)"

        def declare(match: re.Match[str]) -> str:
            return f"color-scheme:{scheme}" if _is_both(match[1]) else match[0]

        head = self.document[: self.head_characters]
        head = _DECLARED.sub(declare, _ASKED.sub(answer, head))
        return head + self.document[self.head_characters :]

    @property
    def has_schemes(self) -> bool:
        """True for mail that looks different in the dark, by its own styles."""
        return self.in_scheme("light") != self.in_scheme("dark")


def _is_both(declared: str) -> bool:
    return {"light", "dark"} <= set(declared.lower().split())


def mail_page(source: str, *, title: str, picture: Callable[[str], str | None]) -> MailPage:
    """Return HTML as a harmless document, never raise; `picture`: data: address of a Content-ID."""
    writer = _Writer(picture)
    writer.write(source[:MAX_HTML_CHARACTERS].replace("\0", ""))
    clean = _harmless().clean("".join(writer.out)).translate(SHOW)
    body = _PLACED.sub(writer.placed, clean)
    doctype = "<!doctype html>" if re.match(r"\s*<!doctype", source, re.IGNORECASE) else ""
    head = (
        f"{doctype}<html{writer.html}><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_BASE_CSS}</style>"
        f"<style>{''.join(writer.css)}</style></head><body{writer.body}>"
    )
    return MailPage(
        document=f"{head}{body}</body></html>",
        head_characters=len(head),
        removed=writer.removed,
        links=tuple(writer.links),
        is_cut=writer.is_cut or len(source) > MAX_HTML_CHARACTERS,
    )


@cache
def _harmless() -> nh3.Cleaner:
    """Return the last filter; its library is loaded once somebody looks at HTML."""
    import nh3

    return nh3.Cleaner(
        tags=set(ALLOWED_TAGS),
        attributes={"*": set(ATTRIBUTES), "img": {"src"}, "a": {"href"}},
        url_schemes={"data"},
        link_rel=None,
    )


class MailPages:
    """HTML of messages as documents, the last ones kept: a page and its frame both need it."""

    def __init__(self, *, limit_characters: int) -> None:
        self._limit = limit_characters
        self._kept: OrderedDict[str, MailPage] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, queue_id: str) -> MailPage | None:
        """Return the kept HTML of a message, or None."""
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
            while sum(len(kept_page.document) for kept_page in self._kept.values()) > self._limit:
                self._kept.popitem(last=False)
        return page


def pictures_of(tree: MimeTree) -> Callable[[str], str | None]:
    """Return a function that finds the picture with a Content-ID as a data URL, within limits."""
    by_id: dict[str, Part] = {}
    for part in tree.leaves:
        if part.content_id and part.content_type in _PICTURES:
            by_id.setdefault(decode_words(part.content_id), part)
    left_bytes = MAX_PICTURES_BYTES

    def picture(content_id: str) -> str | None:
        nonlocal left_bytes
        part = by_id.get(content_id)
        size_bytes = part.end - part.body_start if part is not None else 0
        if part is None or size_bytes > min(left_bytes, MAX_PICTURE_BYTES):
            return None
        left_bytes -= size_bytes
        body = base64.b64encode(tree.body(part)).decode()
        return f"data:{part.content_type};base64,{body}"

    return picture


def html_part(tree: MimeTree) -> Part | None:
    """Return the part that is the HTML of a message."""
    filed = filed_ids(tree)
    pages = [leaf for leaf in tree.leaves if leaf.is_body and leaf.content_type == "text/html"]
    return min(pages, key=lambda page: page.part_id in filed, default=None)


class _Writer:
    def __init__(self, picture: Callable[[str], str | None]) -> None:
        self.out: list[str] = []
        self.css: list[str] = []
        self.html = self.body = ""
        self.links: list[Link] = []
        self.removed = Removed()
        self.is_cut = False
        self._picture = picture
        self._pictures: list[str] = []
        self._balance = Balance(self.out)
        self._link: tuple[str, list[str]] | None = None
        self._css_left = MAX_CSS_CHARACTERS

    def write(self, source: str) -> None:
        """Write a page to `out`, its style sheets to `css`, and fill the other attributes."""
        left = MAX_TAGS
        for token in tokens(source):
            if isinstance(token, str):
                self.out.append(token.translate(HIDE))
                if self._link is not None:
                    self._link[1].append(token)
            else:
                self._write_tag(token)
            left -= not isinstance(token, str) or len(token) == 1
            if left < 0:
                self.is_cut = True
                break
        self._end_link()
        self._balance.close_all()
        self.is_cut |= self._balance.is_too_deep

    def placed(self, match: re.Match[str]) -> str:
        """Put a picture where its number stands."""
        number = int(match[1])
        return f'src="{self._pictures[number]}"' if number < len(self._pictures) else 'src=""'

    def _write_tag(self, tag: Tag) -> None:
        name = tag.name
        if name in ("html", "body"):
            # what the first ones say is kept; the document has its own
            if not tag.is_end and not getattr(self, name):
                setattr(self, name, self._written(tag, _ROOT_ATTRIBUTES).translate(SHOW))
        elif name not in ALLOWED_TAGS:
            if not tag.is_end:
                self._leave_out(tag)
        elif tag.is_end:
            if name == "a":
                self._end_link()
            self._balance.end(name)
        else:
            attributes = self._start_link(tag) if name == "a" else self._written(tag, ATTRIBUTES)
            if name == "img":
                attributes += self._source_of(tag.attributes())
            write = self._balance.void if name in VOID_TAGS else self._balance.start
            write(name, attributes)

    def _leave_out(self, tag: Tag) -> None:
        match tag.name:
            case "style":
                media = re.sub(r"[{};<>]", "", tag.attributes().get("media", "")).strip()
                self._add_css(f"@media {media}{{{tag.raw}}}" if media else tag.raw)
            case "meta":
                said = tag.attributes()
                is_scheme = said.get("name", "").lower() == "color-scheme"
                if is_scheme and _is_both(said.get("content", "")):
                    self.css[:] = [_BOTH_CSS, *self.css]
            case "script":
                self.removed.scripts += 1
            case "form":
                self.removed.forms += 1
            case "iframe" | "frame" | "object" | "applet" | "embed" | "audio" | "video":
                self.removed.frames += 1
            case "link":
                self.removed.sheets += "stylesheet" in tag.attributes().get("rel", "").lower()

    def _add_css(self, source: str) -> None:
        if len(source) > self._css_left:
            self.is_cut = True
            return
        self._css_left -= len(source)
        filtered = filter_css(source)
        self.css.append(filtered.css + "\n")
        self.removed.images += filtered.images
        self.removed.sheets += filtered.sheets

    def _written(self, tag: Tag, allowed: frozenset[str]) -> str:
        parts = []
        for name, value in tag.attributes().items():
            if name == "style":
                filtered = filter_css(value)
                self.removed.images += filtered.images
                value = filtered.css
            elif name not in allowed:
                self.removed.scripts += name.startswith("on")
                self.removed.images += name == "background" and bool(value)
                continue
            parts.append(f' {name}="{value[:_MAX_VALUE].translate(HIDE)}"')
        return "".join(parts)

    def _source_of(self, attributes: dict[str, str]) -> str:
        source = attributes.get("src", "").strip()
        shown: str | None = None
        if source[:4].lower() == "cid:":
            shown = self._picture(unquote(source[4:])) or self._picture(source[4:])
        elif _PICTURE.match(source):
            shown = escape(source)
        elif source:
            self.removed.images += 1
        elif "srcset" not in attributes:
            return ""
        self._pictures.append(_placeholder(attributes) if shown is None else shown)
        return f' src="data:,{len(self._pictures) - 1}"'

    def _start_link(self, tag: Tag) -> str:
        self._end_link()
        target = tag.attributes().get("href", "").strip()[:_MAX_TARGET]
        written = self._written(tag, ATTRIBUTES - {"title"})
        if not target:
            return written
        self.removed.scripts += target.lower().lstrip("\0 ").startswith("javascript:")
        if not target.startswith("#"):
            self._link = (target, [])
        # no element has this id, so that a click does not even scroll
        return f'{written} href="#relaygw-link" title="{target.translate(HIDE)}"'

    def _end_link(self) -> None:
        if self._link is not None and len(self.links) < MAX_LINKS:
            target, pieces = self._link
            text = " ".join("".join(pieces)[: 4 * _MAX_LINK_TEXT].split())
            self.links.append(Link(target, text[:_MAX_LINK_TEXT]))
        self._link = None


def _placeholder(attributes: Mapping[str, str]) -> str:
    """Return the data: address of a hatched field of a picture's size that shows its `alt` text.

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
