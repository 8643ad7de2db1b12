"""Mail about mail: what a sender, or an operator, is told of mail that failed, waits or went on.

RFC 3464 (reports), RFC 3461 (who wants to hear what), RFC 3834 (what is never answered), RFC 6522
(the frame), RFC 6533 (addresses beyond ASCII, always in their ASCII form here). What comes from
strangers becomes printable text on lines of its own before it is written anywhere.
"""

from __future__ import annotations

import re
import textwrap
from base64 import encodebytes
from binascii import b2a_qp
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from enum import StrEnum

from relaygw.mail.content import header_end, header_fields, normalise_line_ends
from relaygw.mail.dsn import encode_utf8_address, shown_orcpt
from relaygw.mail.state import RecipientState
from relaygw.mail.words import span

MAX_WHOLE_BYTES = 50_000  # of mail that is given back whole, as Postfix's bounce_size_limit
MAX_HEADER_BYTES = 32_768  # of its header, where only that is given back
_MAX_TOLD = 100  # recipients; the report has all of them
_MAX_REPLY = 900  # characters
_WIDTH = 72
_MAX_LINE = 900  # of a header field, in front of which it is folded
_EIGHT_BIT = "8bit"
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")
_REPLY = re.compile(r"[245]\d\d(?:[ -]|$)")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,240}>")


class NoticeKind(StrEnum):
    """What is told; the words of RFC 3464 for it."""

    FAILED = "failed"
    DELAYED = "delayed"
    RELAYED = "relayed"  # to a server that does not tell what becomes of it


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticedRecipient:
    """A recipient that somebody is told of."""

    rcpt_no: int
    delivery_no: int
    address: str
    original: str | None
    state: RecipientState
    provider: str | None
    reply: str | None
    dsn: str | None
    changed_at_ms: int
    dsn_notify: str | None
    dsn_orcpt: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DueNotice:
    """What is to be told of a message now."""

    queue_id: str
    kind: NoticeKind
    tries: int  # in vain
    sender: str
    subject: str
    message_id: str
    accepted_at_ms: int
    size_bytes: int
    smtputf8: bool
    mode: str
    source_listener: str | None
    source_user: str | None
    dsn_ret: str | None
    dsn_envid: str | None
    recipients: tuple[NoticedRecipient, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeEntry:
    """What was told of a message, and by which messages."""

    kind: str
    at_ms: int
    notice_ids: tuple[str, ...]  # none: nobody was told
    detail: str  # whom it was told, or why nobody


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """What is known of a recipient beside the queue's own words; empty where nothing is."""

    explanation: str = ""
    remedy: str = ""
    relay: str = ""  # "host[address]:port" that was spoken to


# --- what is never answered (RFC 3834, section 2) ----------------------------------------------

_TELLING = ("auto-submitted", "precedence", "content-type")
_BULK = frozenset({"bulk", "list", "junk"})


def objection(head: bytes, *, to_sender: bool) -> str:
    """Return why mail with this header is not answered, "" if it may be.

    Not `to_sender`: to somebody who is told of everything. Only reports are not reported then.
    """
    for field in header_fields(head, 0, header_end(head)):
        name = field.name.decode("ascii").lower()
        if name not in _TELLING and not name.startswith("list-"):
            continue
        value = _printable(head[field.value_start : field.value_end].decode("ascii", "replace"))
        word = value.lower().partition(";")[0].split("(")[0].strip()
        if name == "content-type" and word == "multipart/report":
            return "it is a report itself"
        if not to_sender or name == "content-type":
            continue
        if name.startswith("list-"):
            return f"it has a field {field.name.decode('ascii')[:40]}"
        if word in _BULK if name == "precedence" else word != "no":
            return f"its {field.name.decode('ascii')} is {word[:40]}"
    return ""


# --- the notice --------------------------------------------------------------------------------

_SUBJECTS = {
    NoticeKind.FAILED: "Mail could not be delivered",
    NoticeKind.DELAYED: "Mail is delayed",
    NoticeKind.RELAYED: "Mail was passed on",
}
_OPENINGS = {
    NoticeKind.FAILED: "{mail} could not be delivered to the {who} below. It is not tried again.",
    NoticeKind.DELAYED: "{mail} has not been delivered yet to the {who} below. There is no need to "
    "send it again: it is still being tried.",
    NoticeKind.RELAYED: "{mail} was passed on for the {who} below. The next server does not report "
    "what becomes of it: you hear no more of it unless it comes back.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """One notice: of what, to whom, and what goes with it."""

    notice: DueNotice
    target: str
    recipients: tuple[NoticedRecipient, ...]
    causes: Mapping[int, Cause]  # by rcpt_no
    hostname: str
    boundary: str  # that stands nowhere in the content
    retry_until_ms: int | None = None  # of delayed mail

    @property
    def is_for_sender(self) -> bool:
        """True when the reader is the one who sent the mail."""
        return self.target == self.notice.sender


def compose_notice(telling: Telling, head: bytes) -> bytes:
    """Return the content of a notice; `head` is the start of the mail, at least its header."""
    notice = telling.notice
    target = f"<{telling.target}>" if len(telling.target) <= _MAX_LINE else "undisclosed:;"
    header = [
        f"From: Mail Delivery System <MAILER-DAEMON@{telling.hostname}>",
        f"To: {target}",
        f"Subject: {_SUBJECTS[notice.kind]}",
        "Auto-Submitted: auto-replied",
        f"X-Relaygw-Notice: {notice.kind.value} {notice.queue_id}",
    ]
    if _MESSAGE_ID.fullmatch(notice.message_id):
        header += [f"In-Reply-To: {notice.message_id}", f"References: {notice.message_id}"]
    header += [
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{telling.boundary}"',
    ]
    report = "\r\n".join(_report(telling)).encode("ascii")
    parts = (
        _text_part("\r\n".join(_words(telling)) + "\r\n"),
        _part("message/delivery-status", "Delivery report", report + b"\r\n"),
        _original(notice, head),
    )
    edge = f"--{telling.boundary}".encode("ascii")
    if not all(part.isascii() for part in parts):
        header.append(f"Content-Transfer-Encoding: {_EIGHT_BIT}")  # as one of its parts
    lines = ["\r\n".join(header).encode("utf-8"), b"", b"This is a MIME message."]
    for part in parts:
        lines += [edge, part]
    return b"\r\n".join([*lines, edge + b"--", b""])


def _part(kind: str, description: str, body: bytes, encoding: str = "7bit") -> bytes:
    lines = f"Content-Type: {kind}\r\nContent-Description: {description}\r\n"
    return f"{lines}Content-Transfer-Encoding: {encoding}\r\n\r\n".encode("ascii") + body


def _text_part(text: str) -> bytes:
    if text.isascii():
        return _part("text/plain; charset=us-ascii", "Notification", text.encode("ascii"))
    body = _quoted(text.encode("utf-8"))
    return _part("text/plain; charset=utf-8", "Notification", body, "quoted-printable")


def _quoted(data: bytes) -> bytes:
    return normalise_line_ends(b2a_qp(data))


# --- for people --------------------------------------------------------------------------------


def _words(telling: Telling) -> Iterator[str]:
    notice, many = telling.notice, len(telling.recipients) > 1
    mail = "Your mail" if telling.is_for_sender else f"A mail from {_plain(notice.sender)}"
    opening = _OPENINGS[notice.kind].format(mail=mail, who="addresses" if many else "address")
    yield from _wrapped(f"This is the mail gateway {telling.hostname}.")
    yield ""
    yield from _wrapped(opening)
    yield ""
    yield from _wrapped(f"Subject:  {_plain(notice.subject) or '(none)'}", "    ")
    yield f"    Sent:     {_date(notice.accepted_at_ms)}"
    yield f"    Queue id: {notice.queue_id}"
    for one in telling.recipients[:_MAX_TOLD]:
        yield ""
        yield f"<{_plain(one.address)}>"
        for sentence in _about(telling, one):
            yield from _wrapped(sentence, "    ")
    if len(telling.recipients) > _MAX_TOLD:
        yield f"and {len(telling.recipients) - _MAX_TOLD} more: see the report below"
    yield ""
    for sentence in _advice(telling):
        yield from _wrapped(sentence)


def _about(telling: Telling, one: NoticedRecipient) -> Iterator[str]:
    cause = telling.causes.get(one.rcpt_no, Cause())
    if one.original and one.original != one.address:
        yield f"Written as {_plain(one.original)}."
    if one.state is RecipientState.EXPIRED:
        waited = span(max(0, one.changed_at_ms - telling.notice.accepted_at_ms))
        yield f"It was given up after {waited}."
    elif one.state is RecipientState.BLOCKED:
        yield "It was not sent: this gateway does not send to this address."
    if cause.explanation:
        yield cause.explanation
    said = _plain(one.reply or "")[:_MAX_REPLY]
    if said:
        speaker = f"{one.provider} answered" if _is_reply(one) else "The gateway notes"
        yield f"{speaker}: {said}"


def _is_reply(one: NoticedRecipient) -> bool:
    return one.provider is not None and _REPLY.match(one.reply or "") is not None


def _advice(telling: Telling) -> Iterator[str]:
    notice = telling.notice
    if notice.kind is NoticeKind.DELAYED:
        if telling.retry_until_ms is not None:
            yield f"It is tried until {_date(telling.retry_until_ms)}, at least."
        yield "What to do: nothing. If it cannot be delivered in the end, there is another notice."
    elif notice.kind is NoticeKind.FAILED:
        remedies = (cause.remedy for cause in telling.causes.values())
        told = list(dict.fromkeys(one for one in remedies if one))[:3] or [
            "Check the address and what was answered, and correct it."
        ]
        yield f"What to do: {' '.join(told)} Then send the mail again."
    else:
        yield "What to do: nothing."
    yield f"For questions, give your mail administrator the queue id {notice.queue_id}."


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


def _plain(text: str) -> str:
    return _CONTROLS.sub(" ", text).strip()


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub(" ", text).strip()


def _date(at_ms: int) -> str:
    return formatdate(at_ms // 1000, localtime=True)


# --- for programs: message/delivery-status -----------------------------------------------------


def _report(telling: Telling) -> Iterator[str]:
    notice = telling.notice
    yield f"Reporting-MTA: dns; {telling.hostname}"
    yield f"X-Relaygw-Queue-ID: {notice.queue_id}"
    yield f"X-Relaygw-Sender: {_typed(notice.sender)}"
    if notice.dsn_envid:
        yield from _folded(f"Original-Envelope-Id: {_printable(notice.dsn_envid)}")
    yield f"Arrival-Date: {_date(notice.accepted_at_ms)}"
    for one in telling.recipients:
        yield ""
        yield from _recipient_report(telling, one)


def _recipient_report(telling: Telling, one: NoticedRecipient) -> Iterator[str]:
    cause = telling.causes.get(one.rcpt_no, Cause())
    original = shown_orcpt(one.dsn_orcpt) or (_typed(one.original) if one.original else None)
    if original:
        yield f"Original-Recipient: {original}"
    yield f"Final-Recipient: {_typed(one.address)}"
    yield f"Action: {telling.notice.kind.value}"
    yield f"Status: {_status(telling.notice.kind, one)}"
    host = _printable(cause.relay).partition("[")[0]
    if host and _is_reply(one):
        yield f"Remote-MTA: dns; {host[:255]}"
    said = _printable(one.reply or "")[:_MAX_REPLY]
    if said:
        yield from _folded(f"Diagnostic-Code: {'smtp' if _is_reply(one) else 'X-Relaygw'}; {said}")
    yield f"Last-Attempt-Date: {_date(one.changed_at_ms)}"
    if telling.retry_until_ms is not None:
        yield f"Will-Retry-Until: {_date(telling.retry_until_ms)}"


def _status(kind: NoticeKind, one: NoticedRecipient) -> str:
    """Return an enhanced status whose class fits what is told; what expired may have a 4."""
    classes, default = {
        NoticeKind.FAILED: ("54", "5.0.0"),
        NoticeKind.DELAYED: ("4", "4.0.0"),
        NoticeKind.RELAYED: ("2", "2.0.0"),
    }[kind]
    status = one.dsn or ""
    return status if _STATUS.fullmatch(status) and status[0] in classes else default


def _typed(address: str) -> str:
    """Return an address with its type, in ASCII (RFC 6533, section 3)."""
    if address.isascii():
        return f"rfc822; {_printable(address)}"
    return f"utf-8; {encode_utf8_address(address)}"


def _folded(line: str) -> list[str]:
    return textwrap.wrap(line, 76, subsequent_indent="    ", break_on_hyphens=False)


# --- the mail itself ---------------------------------------------------------------------------


def _original(notice: DueNotice, head: bytes) -> bytes:
    """Return what is given back: the header, or all where RET=FULL asks for it and it is small."""
    is_whole = len(head) == notice.size_bytes <= MAX_WHOLE_BYTES
    if notice.dsn_ret == "FULL" and is_whole and b"\0" not in head:
        if head[: header_end(head)].isascii():
            encoding = "7bit" if head.isascii() else _EIGHT_BIT
            return _part("message/rfc822", "Undelivered message", head, encoding)
        if notice.smtputf8:  # unlike the other type it may be encoded (RFC 6532, section 3.7)
            body = normalise_line_ends(encodebytes(head))
            return _part("message/global", "Undelivered message", body, "base64")
    header = _short_header(head)  # one with raw bytes, which nothing permits, is encoded
    kind = "text/rfc822-headers"
    if notice.smtputf8 and not header.isascii():
        kind = "message/global-headers"
    description = "Header of the message"
    is_plain = header.isascii() and b"\0" not in header
    if is_plain and all(len(line) <= 998 for line in header.split(b"\r\n")):
        return _part(kind, description, header)
    return _part(kind, description, _quoted(header), "quoted-printable")


def _short_header(head: bytes) -> bytes:
    """Return the header, or the fields at its start that are short enough together."""
    end = header_end(head)
    if end <= MAX_HEADER_BYTES:
        return head[:end]
    fields: Sequence[int] = [field.end for field in header_fields(head, 0, end)]
    return head[: max((one for one in fields if one <= MAX_HEADER_BYTES), default=0)]
