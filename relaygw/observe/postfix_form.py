"""The log in Postfix's grammar, so that pflogsumm and the like read it unchanged.

They look for their patterns anywhere in a line. So what came from outside is not only escaped, it
cannot look like a field of ours either: no subject or reply makes mail that was not there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from relaygw.mail.envelope import AcceptedMessage, NewRecipient, Recipient, Source
from relaygw.mail.outcome import AttemptDelays, AttemptReport
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.verdict import FAILED, Kind, report_words
from relaygw.mail.words import escape
from relaygw.observe.events import (
    Accepted,
    Attempted,
    Event,
    Judged,
    Level,
    Line,
    Note,
    Rejected,
    accepted_copy,
)

MAX_TEXT_CHARACTERS = 2000  # what a line shows of one free text; the rest is cut off
STATUS = {
    RecipientState.DELIVERED: "sent",
    RecipientState.PENDING: "deferred",
    RecipientState.BOUNCED: "bounced",
    RecipientState.EXPIRED: "expired",
    RecipientState.CAPTURED: "captured",
    RecipientState.BLOCKED: "blocked",
    RecipientState.CANCELLED: "deleted",
}
"""What logs call the states: Postfix's words, and our own where it has none."""
JUDGED = {
    **dict.fromkeys(FAILED, "bounced"),
    Kind.DELIVERED: "arrived",
    Kind.COMPLAINED: "complained",
    Kind.UNSUBSCRIBED: "unsubscribed",
}
"""What logs call last words; "sent" is that the provider took it."""
_INFO = Level.INFO


class PostfixForm:
    """Lines as Postfix's daemons write them; `with_subject` adds subject and source behind them."""

    def __init__(self, *, with_subject: bool) -> None:
        self._with_subject = with_subject

    def lines(self, event: Event) -> list[Line]:
        """Return the lines of one event."""
        return _LINES[type(event)](self, event)

    def _accepted(self, event: Accepted) -> list[Line]:
        message = event.message
        queue_id = message.queue_id
        count = sum([len(part.recipients) for part in message.deliveries])
        subject = f", subject={_quoted(message.subject)}" if self._with_subject else ""
        message_id = _free_text(message.message_id).replace(" ", "\\x20")
        lines = [
            *self._arrival(message),
            *([("cleanup", _INFO, f"{queue_id}: message-id={message_id}")] if message_id else ()),
            (
                "qmgr",
                _INFO,
                f"{queue_id}: from=<{_address(message.sender)}>, size={message.size_bytes}, "
                f"nrcpt={count} (queue active){subject}",
            ),
        ]
        lines += [
            self._settled(message, entry)
            for part in message.deliveries
            for entry in part.recipients
            if entry.state is not RecipientState.PENDING
        ]
        return lines

    def _arrival(self, message: AcceptedMessage) -> list[Line]:
        """Return the line that says who brought it; of a notice there is none, as of Postfix's."""
        source = message.source
        if source.uid is None and source.client is None:
            return []
        if source.uid is not None and source.client is None:
            sender = _address(message.given_sender)
            text = f"{message.queue_id}: uid={source.uid} from=<{sender}>"
            if self._with_subject:  # and what the program told of itself
                text += f" script={_quoted(source.script)}" if source.script else ""
                text += f" cwd={_quoted(source.cwd)}" if source.cwd else ""
            return [("pickup", _INFO, text)]
        text = f"{message.queue_id}: client=unknown[{source.client}]"
        if source.user and not source.host:
            text += f", sasl_username={_free_text(source.user)}"
        elif source.host and self._with_subject:
            text += f", source={_quoted(_origin(source))}"
        return [("smtpd", _INFO, text)]

    def _settled(self, message: AcceptedMessage, entry: NewRecipient) -> Line:
        """Return the line of a recipient that was captured or blocked at acceptance."""
        relay = "sandbox" if entry.state is RecipientState.CAPTURED else "none"
        return (
            "smtp",
            _INFO,
            f"{message.queue_id}: {_recipient(entry)}, relay={relay}, delay=0, delays=0/0/0/0, "
            f"dsn=2.0.0, status={STATUS[entry.state]} "
            f"({_free_text(entry.reason or 'no reason given')})"
            f"{self._tail(message.subject, message.source)}",
        )

    def _attempted(self, event: Attempted) -> list[Line]:
        claimed, update = event.claimed, event.update
        copy = accepted_copy(event) if claimed.released else None
        lines = [] if copy is None else self._accepted(copy)
        if update.recipients:
            entries = {entry.rcpt_no: entry for entry in claimed.recipients}
            tail = self._tail(claimed.subject, claimed.source)
            lines += [
                (
                    "smtp",
                    _INFO,
                    f"{claimed.queue_id}: {_recipient(entries[change.rcpt_no])}, "
                    f"{_way(event, event.report_on(change))}, dsn={change.dsn or '4.0.0'}, "
                    f"status={STATUS[change.state]} "
                    f"({_free_text(change.reply or 'no reply')}){tail}",
                )
                for change in update.recipients
            ]
        if update.state is DeliveryState.FINISHED:
            lines.append(("qmgr", _INFO, f"{claimed.queue_id}: removed"))
        elif update.state is DeliveryState.HELD:
            reason = _free_text(update.reason or "")
            lines.append(("qmgr", _INFO, f"{claimed.queue_id}: held ({reason})"))
        return lines

    def _judged(self, event: Judged) -> list[Line]:
        """Return a line that readers count as no delivery; of what came back they count a bounce.

        The delivery to the provider has a line of its own, with status=sent.
        """
        delay = _seconds((event.at_ms - event.accepted_at_ms) / 1000)
        words = report_words(event.kind, event.dsn)
        said = f": {event.detail}" if event.detail else ""
        subject = f", subject={_quoted(event.subject)}" if self._with_subject else ""
        return [
            (
                "smtp",
                _INFO,
                f"{event.queue_id}: to=<{_address(event.address)}>, relay={_word(event.provider)}, "
                f"delay={delay}, delays=0/0/0/{delay}, dsn={dsn_of(event)}, "
                f"status={JUDGED[event.kind]} ({_free_text(f'reported: {words}{said}')}){subject}",
            )
        ]

    def _rejected(self, event: Rejected) -> list[Line]:
        return [
            (
                "smtpd",
                _INFO,
                f"NOQUEUE: reject: {event.stage} from {event.peer}: {_free_text(event.reply)}; "
                f"from=<{_address(event.sender)}> proto={event.protocol} "
                f"helo=<{_free_text(event.helo)}> command={_free_text(event.command)}",
            )
        ]

    def _note(self, event: Note) -> list[Line]:
        return [(event.daemon, event.parts()[1], _free_text(event.text))]

    def _tail(self, subject: str, source: Source) -> str:
        if not self._with_subject:
            return ""
        return f", subject={_quoted(subject)}, source={_quoted(_origin(source))}"


_LINES: dict[type[Event], Callable[[PostfixForm, Any], list[Line]]] = {
    Accepted: PostfixForm._accepted,
    Attempted: PostfixForm._attempted,
    Judged: PostfixForm._judged,
    Rejected: PostfixForm._rejected,
    Note: PostfixForm._note,
}


# --- parts of a line -----------------------------------------------------------------------


def _origin(source: Source) -> str:
    """Return in words who handed a message in: `10.0.0.5 user=shop`, `uid=33 script=60:x.php`."""
    client, uid, user = source.client, source.uid, source.user
    if client and uid is None and user is None:  # nearly always
        return client
    parts = [source.host or client or ""]
    if uid is not None:
        parts.append(f"uid={uid}")
    if user is not None:
        parts.append(f"user={user}")
    if source.script is not None:
        parts.append(f"script={source.script}")
    return " ".join(filter(None, parts))


def _address(address: str) -> str:
    """Return an address that ends at the next `>` and is one word, quoted or not."""
    shown = address if address.isprintable() else escape(address)
    if " " in shown or ">" in shown:
        shown = shown.replace(" ", "\\x20").replace(">", "\\x3e")
    return shown


def _recipient(entry: NewRecipient | Recipient) -> str:
    """Return the fields of a recipient: the address, and the one that was given instead."""
    shown = f"to=<{_address(entry.address)}>"
    return f"{shown}, orig_to=<{_address(entry.original)}>" if entry.original else shown


def dsn_of(event: Judged) -> str:
    """Return the status of a last word, one of our own where the report has none."""
    if event.dsn is not None and _STATUS.fullmatch(event.dsn):
        return event.dsn
    if event.kind not in FAILED:
        return "2.0.0"
    return "5.0.0" if event.kind is Kind.HARD else "4.0.0"


def _word(name: str) -> str:
    """Return a name that ends at the next comma."""
    return _free_text(name).replace(",", "\\x2c").replace(" ", "\\x20") or "none"


def _free_text(text: str) -> str:
    """Return text from outside, escaped, without anything that readers take for a field."""
    shown = text if text.isprintable() else escape(text)
    for seen, instead in _FORGERIES:
        if seen in shown:
            shown = shown.replace(seen, instead)
    return shown if len(shown) <= MAX_TEXT_CHARACTERS else cut(shown)


def _quoted(text: str) -> str:
    """Return text from outside in quotes, which end where they seem to."""
    shown = _free_text(text)
    return '"' + (shown.replace('"', '\\"') if '"' in shown else shown) + '"'


_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")  # RFC 3463, section 2
_FORGERIES = (
    ("=<", "=\\x3c"),  # to=<a@b>, relay=
    ("client=", "client\\x3d"),
    ("forwarded as ", "forwarded\\x20as "),  # pflogsumm: not delivered
)


def _way(event: Attempted, report: AttemptReport) -> str:
    uses = f"conn_use={report.session_uses}, " if report.session_uses > 1 else ""
    delay = _seconds((event.at_ms - event.claimed.accepted_at_ms) / 1000)
    return f"relay={escape(report.relay)}, {uses}delay={delay}, {_delays(report.delays)}"


def _delays(delays: AttemptDelays) -> str:
    """Return Postfix's delays=a/b/c/d."""
    intake, queue = _seconds(delays.intake_s), _seconds(delays.queue_s)
    connect, transmit = _seconds(delays.connect_s), _seconds(delays.transmit_s)
    return f"delays={intake}/{queue}/{connect}/{transmit}"


def _seconds(value: float) -> str:
    """Format as Postfix does: two significant digits below ten, else whole seconds."""
    if value <= 0:
        return "0"
    return f"{value:.2g}" if value < 10 else str(round(value))


# --- text from outside ---------------------------------------------------------------------


def cut(text: str) -> str:
    """Return `text`, or its beginning where it is longer than a line should be."""
    if len(text) <= MAX_TEXT_CHARACTERS:
        return text
    return f"{text[:MAX_TEXT_CHARACTERS]}..."
