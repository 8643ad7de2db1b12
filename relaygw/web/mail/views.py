"""What is shown and saved of the content of a message: its views, its HTML, source and parts.

Links are listed with their real targets; none is ever fetched. The frame's document is as harmless
in a tab (decision 13).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from relaygw.mail.mime_header import decode_text, decode_words
from relaygw.mail.mime_tree import MimeTree, Part
from relaygw.mail.searchable_text import few_signs
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.store import Store, read_content
from relaygw.web import words
from relaygw.web.context import WebContext, existing, opens, reads
from relaygw.web.gate.guards import STRICT_HEADERS
from relaygw.web.mail.html_page import MAX_LINKS, SCHEMES, Link, MailPage, Removed, html_part
from relaygw.web.mail.parts import file_name_of, filed_ids, filed_parts, kind_of, load_tree
from relaygw.web.mail.text import text_of_html, texts_of

VIEWS = {  # each has a template view_NAME.html; what its tab says
    "html": "HTML",
    "text": "Text",
    "headers": "Headers",
    "links": "Links",
    "parts": "Parts",
    "source": "Source",
}
Tab = tuple[str, str, int]  # of a view: its name, what it says, a number (0: none)
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


@dataclass(frozen=True, slots=True)
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
    found = Counter((link.target, link.text, "HTML") for link in html)
    found.update((match[0].rstrip(_TRAILING), "", "text") for match in _IN_TEXT.finditer(text))
    found.update((target, "List-Unsubscribe", "header") for target in unsubscribe)
    lines = []
    for (target, said, where), number in islice(found.items(), MAX_LINKS):
        host = _host(target)
        warning = _warning(target, said, host)
        lines.append(ListedLink(target, said, where, number, host is not None, warning))
    return lines, len(found) > MAX_LINKS


def _host(target: str) -> str | None:
    """Return the host of a web address in lower case, None of anything else."""
    try:
        parts = urlsplit(few_signs(target))  # it normalises the host
        return (parts.hostname or None) if parts.scheme in ("http", "https") else None
    except ValueError:
        return None


def _warning(target: str, text: str, host: str | None) -> str:
    scheme = target.partition(":")[0].lower()
    if scheme in ("javascript", "vbscript", "data"):
        return "a script or data, not an address"
    if host is None:
        return "" if scheme in ("mailto", "tel", "sms") else "not a complete address"
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
    texts = (leaf for leaf in tree.leaves if leaf.is_body and leaf.content_type == "text/plain")
    parts = [text for text in texts if text.part_id not in filed]
    if not parts:
        return None
    if tree.root.content_type == "multipart/alternative":
        parts = parts[:1]
    pieces, is_cut = texts_of(tree, parts, limit_characters=MAX_TEXT_CHARACTERS)
    what = f"The text continues: {MAX_TEXT_CHARACTERS:,} characters of it are shown."
    return Shown("\n\n".join(pieces), what if is_cut else "")


def _text_of_page(tree: MimeTree) -> Shown:
    if (part := html_part(tree)) is None:
        return Shown("")
    source, is_cut = tree.text(part, limit_characters=MAX_TEXT_CHARACTERS)
    what = f"The HTML continues: the words of {MAX_TEXT_CHARACTERS:,} characters are shown."
    return Shown(text_of_html(source), what if is_cut else "")


def _as_it_is(raw: bytes, limit_bytes: int, what: str) -> Shown:
    text = decode_text(raw[:limit_bytes], "utf-8").replace("\r\n", "\n")
    goes_on = f"The {what} continues: {limit_bytes:,} of {len(raw):,} bytes are shown."
    return Shown(text, goes_on if len(raw) > limit_bytes else "")


def _counted(removed: Removed, nouns: Mapping[str, str], glue: str) -> str:
    numbers = ((getattr(removed, name), noun) for name, noun in nouns.items())
    return glue.join(words.counted(number, noun) for number, noun in numbers if number)


def view_context(view: str, tree: MimeTree, page: MailPage | None) -> dict[str, Any]:
    """Return the content of one of VIEWS, and the tabs of all of them."""
    text = _plain_text(tree)
    told = decode_words(tree.first("List-Unsubscribe")).split(",")
    unsubscribe = [word for word in (each.strip("<> ") for each in told) if word][:10]
    links, has_more = listed_links(
        page.links if page is not None else (), text.text if text is not None else "", unsubscribe
    )
    parts = part_lines(tree)
    numbers = {"links": len(links), "parts": len(parts)}
    there = {**VIEWS, "html": VIEWS["html"] if page is not None else ""}
    tabs: list[Tab] = [
        (name, label, numbers.get(name, 0)) for name, label in there.items() if label
    ]
    shown: dict[str, Any] = {
        "tabs": tabs,
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
                "has_schemes": page.has_schemes,
            }
        case "text":
            shown |= {"is_from_html": text is None, "text": text or _text_of_page(tree)}
        case "headers":
            listed = tree.message_fields[:MAX_LISTED_FIELDS]
            fields = [(name, decode_words(value)) for name, value in listed]
            header = tree.content[: tree.root.body_start]
            shown |= {"fields": fields, "raw": _as_it_is(header, MAX_HEADER_BYTES, "header")}
        case "parts":
            left = max(0, len(tree.parts) - MAX_LISTED_PARTS)
            shown |= {"part_tree": part_tree(tree), "tree_left": left}
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
            "size": words.size(decoded_bytes(tree, part)),
            "is_inline": is_inline,
            "kind": kind_of(part),
        }
        for parts, is_inline in ((attachments, False), (inline, True))
        for part in parts
    ]


def part_tree(tree: MimeTree) -> dict[str, Any]:
    """Return the message as a part with those in it, MAX_LISTED_PARTS at most in all."""
    filed, page = filed_ids(tree), html_part(tree)
    leaves = {part.part_id for part in tree.leaves}
    nodes: dict[str, dict[str, Any]] = {}
    for part in (tree.root, *tree.parts[:MAX_LISTED_PARTS]):
        is_filed, is_leaf = part.part_id in filed, part.part_id in leaves
        is_text = part.is_body and not is_filed and part.content_type == "text/plain"
        nodes[part.part_id] = node = {
            "part_id": part.part_id,
            "name": file_name_of(part) if is_filed or part.file_name else "",
            "content_type": part.content_type,
            "coding": ", ".join(word for word in (part.charset, part.encoding) if word)[:80],
            "size": words.size(decoded_bytes(tree, part)) if is_leaf else "",
            "is_inline": is_filed and part.disposition != "attachment" and not part.is_body,
            "is_leaf": is_leaf,
            "kind": kind_of(part) if is_leaf else "",
            "view": "html" if part is page else "text" if is_text else "",
            "parts": [],
        }
        if part is not tree.root:
            parent = part.part_id.rpartition(".")[0] or tree.root.part_id
            nodes[parent]["parts"].append(node)
    return nodes[tree.root.part_id]


def decoded_bytes(tree: MimeTree, part: Part) -> int:
    """Return about how large a part is; nothing is decoded for that."""
    raw = part.end - part.body_start
    if part.encoding != "base64":
        return raw
    letters = raw - 2 * tree.content.count(b"\r\n", part.body_start, part.end)
    padding = tree.content.count(b"=", max(part.body_start, part.end - 4), part.end)
    return max(0, letters * 3 // 4 - padding)


Find = Callable[[WebContext, Request], QueueEntry]  # raises 404 where there is no message

FRAME_HEADERS = {
    "Content-Security-Policy": (
        "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
    ),
    "X-DNS-Prefetch-Control": "off",
}
FRAMED = "framed"  # the parameter by which a page of ours asks for a document that it measures
# no more rights than the other: an origin of ours is what the page needs to see how high it is
MEASURED_HEADERS = FRAME_HEADERS | {
    "Content-Security-Policy": FRAME_HEADERS["Content-Security-Policy"].replace(
        "sandbox;", "sandbox allow-same-origin;", 1
    )
}


def frame_headers(request: Request) -> dict[str, str]:
    """Return the policy of a document: an origin only within a page, as far as browsers tell."""
    is_framed = request.headers.get("sec-fetch-dest", "iframe") == "iframe"
    return MEASURED_HEADERS if is_framed and FRAMED in request.query_params else FRAME_HEADERS


def scheme_of(request: Request) -> str:
    """Return in which of SCHEMES somebody wants to see mail."""
    wanted = request.query_params.get("scheme", "")
    return wanted if wanted in SCHEMES else SCHEMES[0]


def saved_headers(part: Part) -> dict[str, str]:
    """Return the fields that make a browser save a part under its name."""
    name = file_name_of(part)
    plain = name.encode("ascii", "replace").decode().replace("?", "_")
    return {
        "Content-Disposition": (
            f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
        ),
        # should a browser show it all the same, then without an origin and without scripts
        "Content-Security-Policy": STRICT_HEADERS["Content-Security-Policy"] + "; sandbox",
    }


def saved_source(entry: QueueEntry) -> dict[str, str]:
    """Return the field that makes a browser save the source of a message."""
    return {"Content-Disposition": f'attachment; filename="{entry.queue_id}.eml"'}


def source_chunks(store: Store, entry: QueueEntry) -> Iterator[bytes]:
    """Return the source of a message as it is stored; raises 404 when it is gone."""
    chunks = read_content(store, entry)
    first = existing(next(chunks, None))
    return chain((first,), chunks)


def part_of(tree: MimeTree, part_id: str) -> Part:
    """Return a part of a message; raises 404 if there is none of that id."""
    return existing(next((part for part in tree.leaves if part.part_id == part_id), None))


def read_part(store: Store, entry: QueueEntry, part_id: str) -> tuple[Part, bytes]:
    """Return a part and its decoded bytes; raises 404 if there is none of that id."""
    tree = load_tree(store, entry)
    part = part_of(tree, part_id)
    return part, tree.body(part)


def content_routes(web: WebContext, path: str, find: Find) -> list[Route]:
    """Return the routes of content below `path`, the path of a message as `find` knows it."""

    async def show_html(request: Request) -> Response:
        entry = await web.read(lambda: find(web, request))
        page = web.mail_pages.get(entry.queue_id)
        if page is None:
            page = await web.open(lambda: web.mail_pages.make(entry, load_tree(web.store, entry)))
        html = existing(page).in_scheme(scheme_of(request))
        return HTMLResponse(html, headers=frame_headers(request))

    def save_source(web: WebContext, request: Request) -> Response:
        entry = find(web, request)
        headers = saved_source(entry) | {"Content-Length": str(entry.size_bytes)}
        chunks = source_chunks(web.store, entry)
        return StreamingResponse(chunks, media_type="message/rfc822", headers=headers)

    def save_part(web: WebContext, request: Request) -> Response:
        entry = find(web, request)
        part, body = read_part(web.store, entry, request.path_params["part_id"])
        # a file, whatever it says it is
        return Response(body, media_type="application/octet-stream", headers=saved_headers(part))

    return [
        Route(path + "/html", show_html, methods=["GET"]),
        Route(path + "/source", partial(reads(save_source), web), methods=["GET"]),
        Route(path + "/part/{part_id}", partial(opens(save_part), web), methods=["GET"]),
    ]
