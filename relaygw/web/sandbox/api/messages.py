"""What Mailpit's API answers about captured mail: lists, searches, messages and their parts.

Every key is there, no list is null, texts are cut. Errors are plain text, 400 or 404.
"""

from __future__ import annotations

import hashlib
import re
import zoneinfo
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import chain
from pathlib import Path
from resource import getpagesize
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)

from relaygw import __version__
from relaygw.mail.clock import clock_ms, utc_time
from relaygw.mail.content_facts import ContentFacts, hidden_recipients
from relaygw.mail.mime_header import decode_words
from relaygw.mail.mime_tree import MimeTree, Part
from relaygw.mail.search import EVERYTHING, MailSearch, parse_search
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.sandbox import CapturedEntry
from relaygw.web.context import WebContext, existing, opens, reads
from relaygw.web.mail import views
from relaygw.web.mail.html_page import MAX_HTML_CHARACTERS, html_part, mail_page
from relaygw.web.mail.parts import file_name_of, filed_parts, load_tree
from relaygw.web.mail.text import bodies_of, read_facts, text_of_html
from relaygw.web.sandbox.captured import captured_batches, captured_of

Json = dict[str, Any]

MAX_SHOWN_CHARACTERS = 4 * 2**20  # how much of the text, and of the HTML, of a message is shown

_MAX_LINKS = 10
_ANGLE = re.compile(r"<([^<>]*)>")
_LINK_TARGET = re.compile(r"(mailto|https?):[^\s]*\w", re.IGNORECASE)


def summary_json(found: CapturedEntry) -> Json:
    """Return a message as an element of a list."""
    entry, facts = found.entry, found.facts or ContentFacts()
    return {
        **_common_json(entry, facts, found.tags),
        "Created": _rfc3339(utc_time(entry.accepted_at_ms)),
        "Attachments": facts.attachments,
        "Snippet": facts.snippet,
    }


def message_json(entry: QueueEntry, tree: MimeTree, *, tags: Sequence[str] = ()) -> Json:
    """Return a whole message with its texts and the list of its parts."""
    text, html = bodies_of(tree, limit_characters=MAX_SHOWN_CHARACTERS)
    text = text or text_of_html(html)
    for what in tree.left_out:
        text += f"\n[relaygw left out {what}]"
    inline, attachments = filed_parts(tree)
    return {
        **_common_json(entry, read_facts(tree), tags),
        "ReturnPath": entry.sender,
        "ListUnsubscribe": _unsubscribe_json(tree),
        "Date": _rfc3339(_date(tree.first("Date"), entry)),
        "Text": text,
        "HTML": html,
        "Inline": [_part_json(tree, part) for part in inline],
        "Attachments": [_part_json(tree, part) for part in attachments],
    }


def headers_json(tree: MimeTree) -> dict[str, list[str]]:
    """Return the fields of the header by name, undecoded, as clients in Go spell the names."""
    fields: dict[str, list[str]] = {}
    for name, value in tree.message_fields:
        spelled = "-".join(word.capitalize() for word in name.split("-"))
        fields.setdefault(spelled, []).append(value)
    return dict(sorted(fields.items()))


def _common_json(entry: QueueEntry, facts: ContentFacts, tags: Sequence[str]) -> Json:
    return {
        "ID": entry.queue_id,
        "MessageID": entry.message_id.strip("<> "),
        "Read": entry.read_at_ms is not None,
        "From": facts.sender,
        "To": facts.to,
        "Cc": facts.cc,
        "Bcc": hidden_recipients(
            facts, [(recipient.address, recipient.original) for recipient in entry.recipients]
        ),
        "ReplyTo": facts.reply_to,
        "Subject": entry.subject,
        "Username": entry.source.user or "",
        "Tags": list(tags),
        "Size": entry.size_bytes,
    }


def _part_json(tree: MimeTree, part: Part) -> Json:
    body = tree.body(part)
    sums = {
        name: hashlib.new(name, body, usedforsecurity=False).hexdigest()
        for name in ("MD5", "SHA1", "SHA256")
    }
    return {
        "PartID": part.part_id,
        "FileName": file_name_of(part) if part.file_name or part.content_id else "",
        "ContentType": part.content_type,
        "ContentID": decode_words(part.content_id),
        "Size": len(body),
        "Checksums": sums,
    }


def _unsubscribe_json(tree: MimeTree) -> Json:
    """Return the List-Unsubscribe field (RFC 2369) with its links, and what is wrong with it."""
    header = decode_words(tree.first("List-Unsubscribe"))
    found = _ANGLE.findall(header)[:_MAX_LINKS]
    links = [link for link in found if _LINK_TARGET.fullmatch(link)]
    problems = ["no link in angle brackets"] if header and not found else []
    problems += [f'"{link}" is not a mail or web link' for link in found if link not in links]
    if len(links) > 2:
        problems.append("more than one mail link and one web link")
    return {
        "Header": header,
        "Links": links,
        "Errors": ", ".join(problems),
        "HeaderPost": decode_words(tree.first("List-Unsubscribe-Post")),
    }


def _date(value: str, entry: QueueEntry) -> datetime:
    try:
        date = parsedate_to_datetime(value[:100])
        return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return utc_time(entry.accepted_at_ms)


def _rfc3339(at: datetime) -> str:
    timespec = "milliseconds" if at.microsecond else "seconds"
    return at.isoformat(timespec=timespec).replace("+00:00", "Z")


LATEST = "latest"
MAX_LISTED = 1000
DEFAULT_LISTED = 50
NOT_FETCHED = "not fetched"
_BATCH_IDS = 5000
_NUMBER = re.compile(r"[0-9]{1,9}")
_CHARSET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_LINK = re.compile(r'href="#relaygw-link" title="((?:https?|mailto):[^"]*)"')


@reads
def show_info(web: WebContext, _: Request) -> Response:
    """Answer what Mailpit tells of itself; 0 where this role does not know."""
    total, unread = web.store.sandbox.count_captured(EVERYTHING)
    accepted, accepted_bytes = web.store.sandbox.taken_since(web.began_at_ms)
    runtime = {
        "Uptime": max(0, clock_ms() - web.began_at_ms) // 1000,
        "Memory": _memory_bytes(),
        "MessagesDeleted": 0,
        "SMTPAccepted": accepted,
        "SMTPAcceptedSize": accepted_bytes,
        "SMTPRejected": 0,
        "SMTPIgnored": 0,
    }
    shown = {
        "Version": f"relaygw {__version__}",
        "LatestVersion": "disabled",  # Mailpit's word for not having looked
        "Database": "",
        "DatabaseSize": 0,
        "Messages": total,
        "Unread": unread,
        "Tags": web.store.sandbox.tags(),
        "RuntimeStats": runtime,
    }
    return JSONResponse(shown)


def _memory_bytes() -> int:
    """Return the memory of this process in bytes; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()
    except OSError:
        return 0


@reads
def list_messages(web: WebContext, request: Request) -> Response:
    """Answer `limit` messages from `start` on, newest first."""
    return _list(web, request, EVERYTHING)


@reads
def search_messages(web: WebContext, request: Request) -> Response:
    """Answer the messages that `query` finds, as `list_messages` does."""
    return _list(web, request, search_of(request, query_of(request)))


@reads
def list_tags(web: WebContext, _: Request) -> Response:
    """Answer the tags in use."""
    return JSONResponse(list(web.store.sandbox.tags()))


def _list(web: WebContext, request: Request, search: MailSearch) -> Response:
    start = _number(request, "start", default=0)
    limit = _number(request, "limit", default=DEFAULT_LISTED)
    sandbox = web.store.sandbox
    web.indexer.catch_up()
    total, unread = sandbox.count_captured(EVERYTHING)
    matching = (total, unread) if search == EVERYTHING else sandbox.count_captured(search)
    # Mailpit takes 0 for all of them
    found = sandbox.find_captured(search, start=start, limit=min(limit or MAX_LISTED, MAX_LISTED))
    shown = {
        "total": total,
        "unread": unread,
        "count": len(found),
        "messages_count": matching[0],
        "messages_unread": matching[1],
        "start": start,
        "tags": list(sandbox.tags()),
        "messages": [summary_json(mail) for mail in found],
    }
    return JSONResponse(shown)


@opens
def show_message(web: WebContext, request: Request) -> Response:
    """Answer a message with its texts and the list of its parts; it counts as read then."""
    found, tree = _opened(web, request)
    if found.entry.read_at_ms is None:
        web.store.sandbox.mark_read([found.entry.queue_id], is_read=True)
    return JSONResponse(message_json(found.entry, tree, tags=found.tags) | {"Read": True})


@opens
def show_headers(web: WebContext, request: Request) -> Response:
    """Answer the header as a map of lists."""
    return JSONResponse(headers_json(_opened(web, request)[1]))


@reads
def show_raw(web: WebContext, request: Request) -> Response:
    """Answer the source, chunk by chunk as the store has it."""
    entry = found_by(web, request).entry
    headers = views.saved_source(entry) if request.query_params.get("dl") == "1" else None
    chunks = views.source_chunks(web.store, entry)
    return StreamingResponse(chunks, media_type="text/plain", headers=headers)


@opens
def show_part(web: WebContext, request: Request) -> Response:
    """Answer the decoded bytes of a part under its own type, to be saved, never shown."""
    entry = found_by(web, request).entry
    part, body = views.read_part(web.store, entry, request.path_params["part_id"])
    content_type = part.content_type
    if content_type.startswith("text/") and _CHARSET.fullmatch(part.charset):
        content_type += f"; charset={part.charset}"
    return Response(body, headers=views.saved_headers(part) | {"Content-Type": content_type})


@reads
def show_latest(web: WebContext, request: Request) -> Response:
    """Lead to the page of the newest message."""
    request.path_params["queue_id"] = LATEST
    path = f"/sandbox/{found_by(web, request).entry.queue_id}"
    return RedirectResponse(request.scope.get("root_path", "") + path, status_code=302)


@opens
def show_html(web: WebContext, request: Request) -> Response:
    """Answer the HTML as the frame of the page has it, but with links that lead, for tests."""
    found, tree = _opened(web, request)
    page = existing(web.mail_pages.make(found.entry, tree))
    document = _LINK.sub(r'href="\1" rel="noopener noreferrer"', page.document)
    return HTMLResponse(document, headers=views.FRAME_HEADERS)


@opens
def show_text(web: WebContext, request: Request) -> Response:
    """Answer the text of a message."""
    found, tree = _opened(web, request)
    return PlainTextResponse(message_json(found.entry, tree)["Text"])


def _opened(web: WebContext, request: Request) -> tuple[CapturedEntry, MimeTree]:
    found = found_by(web, request)
    return found, load_tree(web.store, found.entry)


async def refuse_chaos(_: WebContext, __: Request) -> Response:
    """Answer that nothing is broken on purpose here."""
    return PlainTextResponse("Chaos is not enabled", status_code=400)


def query_of(request: Request) -> str:
    """Return the search of a request; raises 400 without one."""
    query = request.query_params.get("query", "").strip()
    if not query:
        raise HTTPException(400, "query is empty; write a search, e.g. query=subject:order")
    return query


def search_of(request: Request, query: str) -> MailSearch:
    """Return the search of `query`, its dates in the zone `tz` of a request; raises 400."""
    name = request.query_params.get("tz", "")
    try:
        zone = zoneinfo.ZoneInfo(name) if name else UTC
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise HTTPException(
            400, f"tz is not a time zone: {name[:40]!r}; e.g. Europe/Berlin"
        ) from None
    search = parse_search(query, tz=zone)
    if search.mistake is not None:  # else a test for "no such mail" would pass
        raise HTTPException(400, f"query: {search.mistake}")
    return search


def _number(request: Request, name: str, *, default: int) -> int:
    value = request.query_params.get(name) or str(default)
    if not _NUMBER.fullmatch(value):
        raise HTTPException(400, f"{name} is not a number from 0 to 999999999")
    return int(value)


def found_by(web: WebContext, request: Request) -> CapturedEntry:
    """Return the captured message that the path names; raises 404 if there is none."""
    if request.path_params["queue_id"] != LATEST:
        return captured_of(web, request)
    return existing(web.store.sandbox.captured_entry(None))


def found_ids(web: WebContext, search: MailSearch) -> list[str]:
    """Return the ids of all that a search finds, also of what nobody has read yet; may be slow."""
    # an id is no measure of when something was captured: only all of them tell what there was
    web.indexer.catch_up(within_s=None)
    return list(chain.from_iterable(captured_batches(web, search, limit=_BATCH_IDS)))


def links_of(message: Json, tree: MimeTree) -> list[views.ListedLink]:
    """Return the links of HTML, text and header with their real targets."""
    part = html_part(tree)
    html = tree.text(part, limit_characters=MAX_HTML_CHARACTERS)[0] if part is not None else ""
    page = mail_page(html, title="", picture=lambda _: None)
    return views.listed_links(page.links, message["Text"], message["ListUnsubscribe"]["Links"])[0]
