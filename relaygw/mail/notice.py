"""Mail about mail: what a sender, or an operator, is told of mail that failed, waits or went on.

RFC 3464 (reports), RFC 3461 (who wants to hear what), RFC 6522 (the frame), RFC 6533 (addresses
beyond ASCII, always in their ASCII form here). What comes from strangers becomes printable text on
lines of its own before it is written anywhere.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from enum import StrEnum

from relaygw.mail.dsn_request import encode_utf8_address, shown_orcpt
from relaygw.mail.envelope import Envelope, RecipientRecord
from relaygw.mail.returned import EIGHT_BIT, part, quoted, returned_part
from relaygw.mail.state import EXPIRED_BY, CaptureCode, RecipientState, capture_code
from relaygw.mail.words import span

MAX_NOTICE_BYTES = 200 * 1024
_MAX_WORDS_BYTES = 40_000  # for people; as much and a little of MAX_NOTICE_BYTES is kept for them
_MAX_TOLD = 100  # recipients, for people; the report has all for whom there is room
_MAX_REPLY = 900  # characters
_MAX_SUBJECT = 300
_WIDTH = 72
_MAX_LINE = 900  # of a header field, in front of which it is folded
_FOLD_WIDTH = 76
_WORD = re.compile(r"(?<! ) *+[^ ]++")
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
class NoticedRecipient(RecipientRecord):
    """A recipient that somebody is told of."""

    dsn_notify: str | None
    dsn_orcpt: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DueNotice(Envelope):
    """What is to be told of a message now."""

    kind: NoticeKind
    tries: int  # in vain
    message_id: str
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
    said: str = ""  # the last reply
    attempted_at_ms: int | None = None


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
    is_whole = notice.dsn_ret == "FULL" and notice.kind is NoticeKind.FAILED  # RFC 3461, 6.3
    original = returned_part(
        head, size_bytes=notice.size_bytes, smtputf8=notice.smtputf8, may_be_whole=is_whole
    )
    blocks = _blocks(telling, MAX_NOTICE_BYTES - _MAX_WORDS_BYTES - 8_000 - len(original))
    report = "\r\n".join([*_report_head(notice, telling.hostname), *blocks]).encode("ascii")
    parts = (
        _text_part("\r\n".join(_words(telling, reported=len(blocks))) + "\r\n"),
        part("message/delivery-status", "Delivery report", report),
        original,
    )
    edge = f"--{telling.boundary}".encode("ascii")
    if not all(piece.isascii() for piece in parts):
        header.append(f"Content-Transfer-Encoding: {EIGHT_BIT}")  # as one of its parts
    lines = ["\r\n".join(header).encode("utf-8"), b"", b"This is a MIME message."]
    for piece in parts:
        lines += [edge, piece]
    return b"\r\n".join([*lines, edge + b"--", b""])


def _text_part(text: str) -> bytes:
    if text.isascii():
        return part("text/plain; charset=us-ascii", "Notification", text.encode("ascii"))
    body = quoted(text.encode("utf-8"))
    return part("text/plain; charset=utf-8", "Notification", body, "quoted-printable")


# --- for people --------------------------------------------------------------------------------


def _words(telling: Telling, *, reported: int) -> Iterator[str]:
    notice, many = telling.notice, len(telling.recipients) > 1
    mail = "Your mail" if telling.is_for_sender else f"A mail from {plain(notice.sender)}"
    opening = _OPENINGS[notice.kind].format(mail=mail, who="addresses" if many else "address")
    yield from wrap_text(f"This is the mail gateway {telling.hostname}.")
    yield ""
    yield from wrap_text(opening)
    yield ""
    yield from wrap_text(f"Subject:  {plain(notice.subject)[:_MAX_SUBJECT] or '(none)'}", "    ")
    yield f"    Sent:     {_date(notice.accepted_at_ms)}"
    yield f"    Queue id: {notice.queue_id}"
    told, room = 0, _MAX_WORDS_BYTES
    for recipient in telling.recipients[:_MAX_TOLD]:
        about = [line for said in _about(telling, recipient) for line in wrap_text(said, "    ")]
        lines = ["", f"<{plain(recipient.address)}>", *about]
        room -= sum(len(quoted(line.encode("utf-8"))) + 2 for line in lines)
        if room < 0 and told:
            break
        told += 1
        yield from lines
    yield from _untold(len(telling.recipients), told, reported)
    yield ""
    for sentence in _advice(telling):
        yield from wrap_text(sentence)


def _untold(everyone: int, told: int, reported: int) -> Iterator[str]:
    if everyone > told:
        yield f"and {everyone - told} more: see the report below"
    if everyone > reported:
        yield f"(The report has room for {reported} of the {everyone}.)"


def _about(telling: Telling, recipient: NoticedRecipient) -> Iterator[str]:
    cause = telling.causes.get(recipient.rcpt_no, Cause())
    if recipient.original and recipient.original != recipient.address:
        yield f"Written as {plain(recipient.original)}."
    if _is_ended_by_hand(recipient):
        yield "It was ended by the administrator of this gateway."
        if cause.said:
            yield f"Before that, {recipient.provider} answered: {plain(cause.said)[:_MAX_REPLY]}"
        return
    if recipient.state is RecipientState.EXPIRED:
        waited = span(max(0, recipient.changed_at_ms - telling.notice.accepted_at_ms))
        yield f"It was given up after {waited}."
    elif recipient.state is RecipientState.BLOCKED:
        yield "It was not sent: this gateway does not send to this address."
    if cause.explanation:
        yield cause.explanation
    said = plain(_last_words(recipient))[:_MAX_REPLY]
    if said:
        speaker = f"{recipient.provider} answered" if _is_reply(recipient) else "The gateway notes"
        yield f"{speaker}: {said}"


def _last_words(recipient: NoticedRecipient) -> str:
    """Return the last reply about it, without the names and notes of operators."""
    if _is_ended_by_hand(recipient):
        return "ended by the administrator of this gateway"
    if _is_untried(recipient):
        return "it waits at this gateway and has not been tried yet"
    if (
        recipient.state is RecipientState.BLOCKED
        and capture_code(recipient.reply) is CaptureCode.SUPPRESSED
    ):
        return CaptureCode.SUPPRESSED.sentence()
    return recipient.reply or ""


def _is_ended_by_hand(recipient: NoticedRecipient) -> bool:
    """Return whether an operator ended it: who that was, and why, is not for strangers."""
    return recipient.state is RecipientState.EXPIRED and (recipient.reply or "").startswith(
        EXPIRED_BY
    )


def _is_untried(recipient: NoticedRecipient) -> bool:
    return recipient.state is RecipientState.PENDING and not recipient.reply


def _is_reply(recipient: NoticedRecipient) -> bool:
    return recipient.provider is not None and _REPLY.match(recipient.reply or "") is not None


def _advice(telling: Telling) -> Iterator[str]:
    notice = telling.notice
    if notice.kind is NoticeKind.DELAYED:
        if telling.retry_until_ms is not None:
            yield f"It is tried until {_date(telling.retry_until_ms)}, at least."
        yield "What to do: nothing. If it cannot be delivered in the end, there is another notice."
    elif notice.kind is NoticeKind.FAILED:
        yield from _failure_advice(telling)
    else:
        yield "What to do: nothing."
    yield f"For questions, give your mail administrator the queue id {notice.queue_id}."


def _failure_advice(telling: Telling) -> Iterator[str]:
    refused = [recipient for recipient in telling.recipients if not _is_ended_by_hand(recipient)]
    if not refused:
        return
    remedies = (
        telling.causes.get(noticed_recipient.rcpt_no, Cause()).remedy
        for noticed_recipient in refused
    )
    told = list(dict.fromkeys(remedy for remedy in remedies if remedy))[:3] or [
        "Check the address and what was answered, and correct it."
    ]
    yield f"What to do: {' '.join(told)} Then send the mail again."


def wrap_text(text: str, indent: str = "") -> list[str]:
    """Return lines as wide as a notice."""
    return textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


def plain(text: str) -> str:
    """Return a text without control characters."""
    return _CONTROLS.sub(" ", text).strip()


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub(" ", text).strip()


def _date(at_ms: int) -> str:
    return formatdate(at_ms // 1000, localtime=True)


# --- for programs: message/delivery-status -----------------------------------------------------


def _report_head(notice: DueNotice, hostname: str) -> Iterator[str]:
    yield f"Reporting-MTA: dns; {hostname}"
    yield f"X-Relaygw-Queue-ID: {notice.queue_id}"
    yield f"X-Relaygw-Sender: {_typed(notice.sender)}"
    if envid := _printable(notice.dsn_envid or ""):
        yield from fold_field(f"Original-Envelope-Id: {envid}")
    yield f"Arrival-Date: {_date(notice.accepted_at_ms)}"
    yield ""


def _blocks(telling: Telling, room: int) -> list[str]:
    """Return the report's fields of each recipient; in the second half of the room only what."""
    blocks: list[str] = []
    short_from, left = room // 2, room
    for recipient in telling.recipients:
        is_short = left < short_from
        lines = _recipient_report(telling, recipient, is_short=is_short)
        block = "".join(f"{line}\r\n" for line in lines)
        left -= len(block) + 2
        if left < 0 and blocks:
            break
        blocks.append(block)
    return blocks


def _recipient_report(
    telling: Telling, recipient: NoticedRecipient, *, is_short: bool
) -> Iterator[str]:
    cause = telling.causes.get(recipient.rcpt_no, Cause())
    original = shown_orcpt(recipient.dsn_orcpt) or (
        _typed(recipient.original) if recipient.original else None
    )
    if original:
        yield f"Original-Recipient: {original}"
    yield f"Final-Recipient: {_typed(recipient.address)}"
    yield f"Action: {telling.notice.kind.value}"
    yield f"Status: {_status(telling.notice.kind, recipient)}"
    if is_short:
        return
    host = _printable(cause.relay).partition("[")[0]
    if host and _is_reply(recipient):
        yield f"Remote-MTA: dns; {host[:255]}"
    said = _printable(_last_words(recipient))[:_MAX_REPLY]
    if said:
        yield from fold_field(
            f"Diagnostic-Code: {'smtp' if _is_reply(recipient) else 'X-Relaygw'}; {said}"
        )
    if cause.attempted_at_ms is not None:
        yield f"Last-Attempt-Date: {_date(cause.attempted_at_ms)}"
    if telling.retry_until_ms is not None:
        yield f"Will-Retry-Until: {_date(telling.retry_until_ms)}"


def _status(kind: NoticeKind, recipient: NoticedRecipient) -> str:
    """Return an enhanced status whose class fits what is told; what expired may have a 4."""
    classes, default = {
        NoticeKind.FAILED: ("54", "5.0.0"),
        NoticeKind.DELAYED: ("4", "4.0.0"),
        NoticeKind.RELAYED: ("2", "2.0.0"),
    }[kind]
    if _is_untried(recipient):
        default = "4.3.0"  # RFC 3463: this mail system, not the network or the destination
    status = recipient.dsn or ""
    return status if _STATUS.fullmatch(status) and status[0] in classes else default


def _typed(address: str) -> str:
    """Return an address with its type, in ASCII (RFC 6533, section 3)."""
    if address.isascii():
        return f"rfc822; {_printable(address)}"
    return f"utf-8; {encode_utf8_address(address)}"


def fold_field(line: str) -> list[str]:
    """Return the lines of a field, folded before spaces alone: joined they are what it was.

    The field keeps its first word beside its name, and no line is of spaces alone (RFC 5322,
    section 3.2.2).
    """
    name, *words = _WORD.findall(line.rstrip())
    lines = [name + "".join(words[:1])]
    for word in words[1:]:
        if len(lines[-1]) + len(word) > _FOLD_WIDTH:
            lines.append(word)
        else:
            lines[-1] += word
    return lines
