"""Captured mail as the JSON objects of Mailpit's API: every key is there, no list is null.

What is read from content comes from `mime_tree`, which bounds the work; texts are cut here,
so that one message cannot fill the memory. Nothing here raises on account of content.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from relaygw.mail.content_facts import ContentFacts, hidden_recipients, nobody
from relaygw.store.protocol import QueueEntry
from relaygw.web.mail.html_text import text_of_html
from relaygw.web.mail.mime_header import decode_words, read_addresses
from relaygw.web.mail.mime_tree import MimeTree, Part
from relaygw.web.mail.search_words import read_words

Json = dict[str, Any]

MAX_SHOWN_CHARACTERS = 4 * 2**20
"""How much of the text, and of the HTML, of a message is shown."""
MAX_SNIPPET_CHARACTERS = 250

_SNIPPET_SOURCE_CHARACTERS = 128 * 1024  # style sheets of shop mail are long
_EPOCH = datetime.fromtimestamp(0, UTC)
_RESERVED_NAMES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"*:<>?|]+')
_MAX_LINKS = 10
_LINK = re.compile(r"<([^<>]*)>")
_LINK_TARGET = re.compile(r"(mailto|https?):[^\s]*\w", re.IGNORECASE)


def read_facts(tree: MimeTree) -> ContentFacts:
    """Return what a list shows of a message."""
    text, html = _bodies(tree, limit_characters=_SNIPPET_SOURCE_CHARACTERS)
    words = " ".join((text or text_of_html(html)).split())
    if len(words) > MAX_SNIPPET_CHARACTERS:
        words = words[: MAX_SNIPPET_CHARACTERS - 3] + "..."
    inlines, attachments = filed_parts(tree)
    return ContentFacts(
        sender=next(iter(read_addresses(tree.first("From"))), nobody()),
        to=tuple(read_addresses(tree.first("To"))),
        cc=tuple(read_addresses(tree.first("Cc"))),
        bcc=tuple(read_addresses(tree.first("Bcc"))),
        reply_to=tuple(read_addresses(tree.first("Reply-To"))),
        attachments=len(attachments),
        inlines=len(inlines),
        snippet=words,
        words=read_words(text, html, (part.file_name for part in (*attachments, *inlines))),
    )


def summary_json(entry: QueueEntry, facts: ContentFacts) -> Json:
    """Return a message as an element of a list."""
    return {
        **_common_json(entry, facts),
        "Created": _rfc3339(_accepted_at(entry)),
        "Attachments": facts.attachments,
        "Snippet": facts.snippet,
    }


def message_json(entry: QueueEntry, tree: MimeTree) -> Json:
    """Return a whole message with its texts and the list of its parts."""
    text, html = _bodies(tree, limit_characters=MAX_SHOWN_CHARACTERS)
    text = text or text_of_html(html)
    for what in tree.left_out:
        text += f"\n[relaygw left out {what}]"
    inline, attachments = filed_parts(tree)
    return {
        **_common_json(entry, read_facts(tree)),
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
    for name, value in sorted(tree.fields, key=lambda item: _spelled(item[0])):
        fields.setdefault(_spelled(name), []).append(value)
    return fields


def filed_parts(tree: MimeTree) -> tuple[list[Part], list[Part]]:
    """Return the parts that are not read but filed: inline ones, and attachments."""
    inline: list[Part] = []
    attachments: list[Part] = []
    is_alone = tree.leaves == [tree.root]
    for part in tree.leaves:
        is_stream = part.content_type == "application/octet-stream"
        is_named = bool(part.file_name or part.content_id)
        if part.disposition == "attachment" or is_stream or (is_alone and _is_only_file(part)):
            attachments.append(part)
        elif is_named and (part.disposition == "inline" or not part.is_body):
            inline.append(part)
    return inline, attachments


def _is_only_file(part: Part) -> bool:
    is_inline = part.disposition == "inline" and part.has_disposition_parameters
    return not part.is_body and not is_inline


def file_name_of(part: Part) -> str:
    """Return a name that is safe to save under: no path, no control characters, not empty."""
    name = part.file_name or part.content_id
    name = re.split(r"[/\\]", _UNSAFE.sub("_", name))[-1].strip(" .")
    if len(name) > 120:
        stem, dot, ending = name.rpartition(".")
        name = stem[:100] + dot + ending[:19] if stem else name[:120]
    if _RESERVED_NAMES.match(name):
        name = f"_{name}"
    return name or f"part-{part.part_id}"


def _common_json(entry: QueueEntry, facts: ContentFacts) -> Json:
    return {
        "ID": entry.queue_id,
        "MessageID": entry.message_id.strip("<> "),
        "Read": entry.read_at_ms is not None,
        "From": facts.sender,
        "To": facts.to,
        "Cc": facts.cc,
        "Bcc": hidden_recipients(facts, [(one.address, one.original) for one in entry.recipients]),
        "ReplyTo": facts.reply_to,
        "Subject": entry.subject,
        "Username": entry.source.user or "",
        "Tags": [],
        "Size": entry.size_bytes,
    }


def _bodies(tree: MimeTree, *, limit_characters: int) -> tuple[str, str]:
    """Return text and HTML of a message, each cut with a note at the end if it is too long.

    Of alternatives the first text is taken, else all of them with a line of hyphens between.
    """
    bodies = [part for part in tree.leaves if part.is_body]
    texts = [part for part in bodies if part.content_type == "text/plain"]
    if tree.root.content_type == "multipart/alternative":
        texts = texts[:1]
    pages = [part for part in bodies if part.content_type == "text/html"][:1]
    return _shown(tree, texts, limit_characters), _shown(tree, pages, limit_characters)


def _shown(tree: MimeTree, parts: list[Part], limit_characters: int) -> str:
    shown: list[str] = []
    left = limit_characters
    for part in parts:
        text = tree.text(part, limit_characters=left)
        shown.append(text[:left])
        left -= len(text)
        if left < 0:
            shown[-1] += f"\n[relaygw left out what is beyond {limit_characters} characters]"
            break
    return "\n--\n".join(shown)


def _part_json(tree: MimeTree, part: Part) -> Json:
    body = tree.body(part)
    return {
        "PartID": part.part_id,
        "FileName": file_name_of(part) if part.file_name or part.content_id else "",
        "ContentType": part.content_type,
        "ContentID": decode_words(part.content_id),
        "Size": len(body),
        "Checksums": {
            "MD5": hashlib.md5(body, usedforsecurity=False).hexdigest(),
            "SHA1": hashlib.sha1(body, usedforsecurity=False).hexdigest(),
            "SHA256": hashlib.sha256(body).hexdigest(),
        },
    }


def _unsubscribe_json(tree: MimeTree) -> Json:
    """Return the List-Unsubscribe field (RFC 2369) with its links, and what is wrong with it."""
    header = decode_words(tree.first("List-Unsubscribe"))
    found = _LINK.findall(header)[:_MAX_LINKS]
    links = [link for link in found if _LINK_TARGET.fullmatch(link)]
    problems: list[str] = []
    if header and not found:
        problems.append("no link in angle brackets")
    problems += [f'"{link}" is no mail or web link' for link in found if link not in links]
    if len(links) > 2:
        problems.append("more than one mail link and one web link")
    return {
        "Header": header,
        "Links": links,
        "Errors": ", ".join(problems),
        "HeaderPost": decode_words(tree.first("List-Unsubscribe-Post")),
    }


def _date(value: str, entry: QueueEntry) -> datetime:
    """Return the date of the header, else the time of acceptance."""
    try:
        date = parsedate_to_datetime(value[:100])
        return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return _accepted_at(entry)


def _accepted_at(entry: QueueEntry) -> datetime:
    return _EPOCH + timedelta(milliseconds=entry.accepted_at_ms)


def _rfc3339(at: datetime) -> str:
    timespec = "milliseconds" if at.microsecond else "seconds"
    return at.isoformat(timespec=timespec).replace("+00:00", "Z")


def _spelled(name: str) -> str:
    return "-".join(word.capitalize() for word in name.split("-"))
