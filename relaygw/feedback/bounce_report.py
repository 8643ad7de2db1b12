"""Reads bounce mails and complaints: RFC 3464 and RFC 5965, and older forms by a library.

    multipart/report; report-type=delivery-status     who failed, who waits, who got it
    multipart/report; report-type=feedback-report     who called it spam

Anybody may write such a mail. So it is only believed when it names both a mail and a recipient
that we sent it to, see `feedback.reading.believed`; what names no mail is no event.

Bounce mails without a report that programs can read are those of qmail, old Exchange and many
others. The library flufl.bounce knows their forms. It looks at each line of a mail with dozens of
patterns, and Python's parser, which it needs, takes time by the square of some mails. So all of
this runs in a process with limits: see `feedback.bounce_mail`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from email import message_from_bytes
from email.utils import parsedate_to_datetime

from flufl.bounce import all_failures

from relaygw.feedback import document
from relaygw.feedback.bounce_mail import MAX_BYTES
from relaygw.feedback.returned import Fields, Returned, fields_of, from_fields, from_text, value_of
from relaygw.mail.clock import DAY_MS
from relaygw.mail.content import normalise_line_ends
from relaygw.mail.mime_tree import MimeTree, Part, read_tree
from relaygw.mail.verdict import Event, Kind

_MAX_PARTS = 100
_MAX_RECIPIENTS = 100
_STATUS_TYPES = ("message/delivery-status", "message/global-delivery-status")
_RETURNED_TYPES = (
    *("message/rfc822", "message/global", "message/global-headers", "text/rfc822-headers"),
)
_ACTIONS = {
    "failed": Kind.SOFT,
    "failure": Kind.SOFT,
    "error": Kind.SOFT,  # of OpenSMTPD
    "delayed": Kind.DEFERRED,
    "delivered": Kind.DELIVERED,
    "expanded": Kind.DELIVERED,
    "relayed": Kind.ACCEPTED,  # to a server that does not tell what becomes of it
}
_BY_CLASS = {"5": Kind.SOFT, "4": Kind.DEFERRED, "2": Kind.DELIVERED}
_DEAD_DOMAIN = "5.4.4"
_FEEDBACK = {  # others, as not-spam and auth-failure, are nobody's complaint
    "abuse": Kind.COMPLAINED,
    "fraud": Kind.COMPLAINED,
    "other": Kind.COMPLAINED,
    "opt-out": Kind.UNSUBSCRIBED,
}
BLANK_LINES = re.compile(rb"(?<![ \t])[ \t]*+\r?\n(?:[ \t]*+\r?\n)+")  # linear: runs are whole
_COMMENT = re.compile(r"\([^()]*\)")
_TYPED = re.compile(r"\s*([A-Za-z0-9-]{1,20})\s*;\s*(.*)", re.DOTALL)
_XTEXT = re.compile(r"\+([0-9A-F]{2})")
_UTF_8 = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")


@dataclass(frozen=True, slots=True)
class Mention:
    """What a report tells of one recipient, under each address that it gives for it."""

    events: tuple[Event, ...]  # alike but for the address; the likeliest first


@dataclass(frozen=True, slots=True)
class _About:
    """What holds for a whole report."""

    returned: Returned
    provider_id: str | None
    at_ms: int
    received_at_ms: int


def read(content: bytes, *, received_at_ms: int, hostname: str) -> list[Mention]:
    """Return the reports about our mail; none for a mail that is no bounce and no complaint.

    `hostname` is this gateway's: its own notices are known already.
    """
    try:
        return _read(content[:MAX_BYTES], received_at_ms, hostname)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []  # what breaks the library that reads it is no report


def _read(content: bytes, received_at_ms: int, hostname: str) -> list[Mention]:
    tree = read_tree(normalise_line_ends(content), max_parts=_MAX_PARTS, with_messages=False)
    header = fields_of(tree.content[: tree.root.head_end])
    about = _About(
        returned=_returned(tree, header, hostname),
        provider_id=None,
        at_ms=_at_ms(header, received_at_ms),
        received_at_ms=received_at_ms,
    )
    for part in tree.leaves:
        if part.content_type in _STATUS_TYPES:
            return _delivery_status(_blocks(tree, part), about, hostname)
        if part.content_type == "message/feedback-report":
            return list(_feedback_report(_inner_header(tree, part), about))
    if not about.returned.is_named:
        return []
    # behind the header: some name the recipient there, too, without a reason
    text = tree.content[tree.root.body_start :].decode("utf-8", "replace")
    return [
        _mention(about, (address,), kind, dsn, said, said)
        for address, kind, dsn, said in _old_form(content, text)[:_MAX_RECIPIENTS]
    ]


def _returned(tree: MimeTree, header: Fields, hostname: str) -> Returned:
    """Return the header of the mail that came back, else text that looks like one."""
    for part in tree.parts:
        if part.content_type in _RETURNED_TYPES:
            found = from_fields(_inner_header(tree, part), hostname)
            if found.is_named:
                return found
    text = b"\n".join(map(tree.body, tree.leaves)).decode("utf-8", "replace")
    found = from_text(text, hostname)
    if found.is_named:
        return found
    answered = value_of(header, "in-reply-to") or value_of(header, "references")
    return replace(found, message_id=document.bare_id(answered.split(" ")[0]))


def _blocks(tree: MimeTree, part: Part) -> list[Fields]:
    """Return the groups of fields in a report, which blank lines part."""
    texts = BLANK_LINES.split(tree.body(part).strip())
    found = [fields_of(text) for text in texts[: _MAX_RECIPIENTS + 1]]
    return [fields for fields in found if fields]


def _inner_header(tree: MimeTree, part: Part) -> Fields:
    blocks = _blocks(tree, part)
    return blocks[0] if blocks else []


# --- RFC 3464 ------------------------------------------------------------------------------------


def _delivery_status(blocks: list[Fields], about: _About, hostname: str) -> list[Mention]:
    head = blocks[0] if blocks else []
    reporter = value_of(head, "reporting-mta").rpartition(";")[2].strip().lower()
    if value_of(head, "x-relaygw-queue-id") and reporter == hostname.lower():
        return []  # our own notice
    # the next server's id: what it said in its 250
    sent_id = value_of(head, "x-postfix-queue-id", "x-relaygw-queue-id")
    about = replace(about, provider_id=document.bare_id(sent_id))
    if not about.returned.is_named and about.provider_id is None:
        return []
    found = (_recipient(fields, about) for fields in blocks)
    return [mention for mention in found if mention is not None]


def _recipient(fields: Fields, about: _About) -> Mention | None:
    addresses = _addresses(fields)
    action = _COMMENT.sub(" ", value_of(fields, "action")).strip().lower()
    said = value_of(fields, "diagnostic-code")
    dsn = _dsn(value_of(fields, "status"), said)
    kind = (
        _ACTIONS.get(re.split(r"[\s;,(]", action)[0]) if action else _BY_CLASS.get((dsn or "")[:1])
    )
    if not addresses or kind is None:
        return None
    if kind is Kind.SOFT and (document.says_no_address(dsn) or dsn == _DEAD_DOMAIN):
        kind = Kind.HARD
    raw = "\n".join(f"{name}: {value}" for name, value in fields)
    return _mention(about, addresses, kind, dsn, said, raw)


def _dsn(status: str, said: str) -> str | None:
    """Return the status; what the receiver said where that is only a class."""
    own = document.status(_COMMENT.sub(" ", status).strip())
    told = document.status(said.partition(";")[2].strip(), said)
    is_vague = own is None or own.endswith(".0.0")
    return told if told and is_vague and (own is None or told[0] == own[0]) else own


def _addresses(fields: Fields) -> tuple[str, ...]:
    """Return the addresses that a recipient has in a report, the one that we used first."""
    found: list[str] = []
    for name in ("original-recipient", "final-recipient", "x-actual-recipient"):
        value = value_of(fields, name)
        typed = _TYPED.fullmatch(value)
        text = (typed[2] if typed else value).strip()
        for form in (text, _plain(text)):
            address = document.address(form)
            if address:
                found.append(address)
    return tuple(dict.fromkeys(found))


def _plain(text: str) -> str:
    """Return an address without the encodings of RFC 3461 and RFC 6533."""
    text = _XTEXT.sub(lambda match: chr(int(match[1], 16)), text)
    return _UTF_8.sub(lambda match: chr(min(int(match[1], 16), 0x10FFFF)), text)


# --- RFC 5965 ------------------------------------------------------------------------------------


def _feedback_report(fields: Fields, about: _About) -> Iterator[Mention]:
    kind = _FEEDBACK.get(value_of(fields, "feedback-type").strip().lower())
    if kind is None or not about.returned.is_named:
        return
    named = [v for name, v in fields if name in ("original-rcpt-to", "removal-recipient")]
    people = tuple(dict.fromkeys(filter(None, map(document.address, named))))
    people = people or (about.returned.to if len(about.returned.to) == 1 else ())
    raw = "\n".join(f"{name}: {value}" for name, value in fields)
    said = value_of(fields, "user-agent")
    if not people:  # hidden: our mark, which nobody guesses, may be of a mail to one recipient
        if about.returned.mark is not None:
            about = replace(about, returned=Returned(mark=about.returned.mark))
            yield _mention(about, (None,), kind, None, said, raw)
        return
    for address in people[:_MAX_RECIPIENTS]:
        mention = _mention(about, (address,), kind, None, said, raw)
        yield Mention(tuple(replace(event, others=len(people) - 1) for event in mention.events))


# --- what becomes of it --------------------------------------------------------------------------


def _mention(
    about: _About,
    addresses: tuple[str | None, ...],
    kind: Kind,
    dsn: str | None,
    said: str,
    raw: str,
) -> Mention:
    mail = about.returned
    named = mail.mark or mail.message_id or mail.queue_id or about.provider_id
    event = Event(
        key=document.key_of(named, addresses[0], kind),
        kind=kind,
        at_ms=about.at_ms,
        mark=mail.mark,
        provider_id=about.provider_id,
        message_id=mail.message_id,
        queue_id=mail.queue_id,
        dsn=dsn,
        detail=document.words(said),
        raw=document.cut(raw).strip(),
    )
    return Mention(tuple(replace(event, address=address) for address in addresses))


def _at_ms(header: Fields, received_at_ms: int) -> int:
    """Return when a report was written, as far as its date can be true."""
    try:
        at_ms = int(parsedate_to_datetime(value_of(header, "date")).timestamp() * 1000)
    except (ValueError, TypeError, OverflowError):
        return received_at_ms
    is_likely = received_at_ms - 7 * DAY_MS <= at_ms <= received_at_ms
    return at_ms if is_likely else received_at_ms


_SAID_NEAR = 600  # characters behind an address in which its reason stands

_OldBounce = tuple[str, Kind, str | None, str]
"""An address, what became of it, the enhanced status and the words beside it."""


def _old_form(content: bytes, text: str) -> list[_OldBounce]:
    """Return who failed, as far as the form is known."""
    try:
        waiting, failed = map(_texts, all_failures(message_from_bytes(content)))
    except Exception:  # its detectors raise whatever a mail makes them raise
        return []
    return [
        *(_bounce(address, text, Kind.SOFT) for address in failed),
        *(_bounce(address, text, Kind.DEFERRED) for address in waiting if address not in failed),
    ]


def _texts(found: Iterable[bytes]) -> list[str]:
    return document.addresses(sorted(address.decode("ascii", "replace") for address in found))


def _bounce(address: str, text: str, kind: Kind) -> _OldBounce:
    at = text.lower().find(address.lower())
    near = text[at + len(address) : at + len(address) + _SAID_NEAR] if at >= 0 else ""
    said = document.words(re.split(r"\r?\n[ \t]*\r?\n", near)[0].lstrip(">:; \r\n\t"), 500)
    dsn = next(filter(None, (document.status(line.strip()) for line in near.splitlines())), None)
    if kind is Kind.SOFT and document.says_no_address(dsn):
        kind = Kind.HARD
    return address, kind, dsn, said
