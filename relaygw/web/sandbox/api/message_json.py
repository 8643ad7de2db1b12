"""Captured mail as the JSON objects of Mailpit's API: every key is there, no list is null.

What is read from content comes from `mime_tree`, which bounds the work; texts are cut here,
so that one message cannot fill the memory. Nothing here raises on account of content.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from relaygw.mail.clock import utc_time
from relaygw.mail.content import ContentFacts, hidden_recipients
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.sandbox import CapturedEntry
from relaygw.web.mail.mime_header import decode_words
from relaygw.web.mail.mime_tree import MimeTree, Part, file_name_of, filed_parts
from relaygw.web.mail.text import bodies_of, read_facts, text_of_html

Json = dict[str, Any]

MAX_SHOWN_CHARACTERS = 4 * 2**20
"""How much of the text, and of the HTML, of a message is shown."""

_MAX_LINKS = 10
_LINK = re.compile(r"<([^<>]*)>")
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
    for name, value in sorted(tree.fields, key=lambda item: _spelled(item[0])):
        fields.setdefault(_spelled(name), []).append(value)
    return fields


def _common_json(entry: QueueEntry, facts: ContentFacts, tags: Sequence[str]) -> Json:
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
        "Tags": list(tags),
        "Size": entry.size_bytes,
    }


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
        return utc_time(entry.accepted_at_ms)


def _rfc3339(at: datetime) -> str:
    timespec = "milliseconds" if at.microsecond else "seconds"
    return at.isoformat(timespec=timespec).replace("+00:00", "Z")


def _spelled(name: str) -> str:
    return "-".join(word.capitalize() for word in name.split("-"))
