"""The log in Postfix's grammar, so that pflogsumm and the like read it unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from relaygw.mail.envelope import AcceptedMessage, Source
from relaygw.mail.outcome import AttemptDelays
from relaygw.mail.state import RecipientState
from relaygw.observe.escaping import escape
from relaygw.observe.events import (
    Accepted,
    Event,
    Held,
    Level,
    Note,
    Outcome,
    Rejected,
    Removed,
    Settled,
)
from relaygw.observe.form import STATUS, Line
from relaygw.observe.postfix_words import (
    free_text,
    origin_of,
    quoted,
    recipient_of,
    script_of,
    shown_address,
    shown_delays,
    shown_seconds,
)

_INFO = Level.INFO
_INSTANT = AttemptDelays()


class PostfixForm:
    """Lines as Postfix's smtpd, pickup, cleanup, qmgr and smtp write them.

    `with_subject` adds subject and source behind what Postfix says; without it there is nothing
    that Postfix would not write.
    """

    def __init__(self, *, with_subject: bool) -> None:
        self._with_subject = with_subject

    def lines(self, event: Event) -> list[Line]:
        """Return the lines of one event."""
        return _LINES[type(event)](self, event)

    def _accepted(self, event: Accepted) -> list[Line]:
        message = event.message
        queue_id = message.queue_id
        count = sum([len(part.recipients) for part in message.deliveries])
        subject = f", subject={quoted(message.subject)}" if self._with_subject else ""
        message_id = free_text(message.message_id).replace(" ", "\\x20")
        return [
            self._arrival(message),
            ("cleanup", _INFO, f"{queue_id}: message-id={message_id}"),
            (
                "qmgr",
                _INFO,
                f"{queue_id}: from=<{shown_address(message.sender)}>, size={message.size_bytes}, "
                f"nrcpt={count} (queue active){subject}",
            ),
        ]

    def _arrival(self, message: AcceptedMessage) -> Line:
        source = message.source
        if source.uid is not None and source.client is None:
            sender = shown_address(message.given_sender)
            text = f"{message.queue_id}: uid={source.uid} from=<{sender}>"
            return "pickup", _INFO, text + (script_of(source) if self._with_subject else "")
        text = f"{message.queue_id}: client=unknown[{source.client}]"
        if source.user and not source.host:
            text += f", sasl_username={free_text(source.user)}"
        elif source.host and self._with_subject:
            text += f", source={quoted(origin_of(source))}"
        return "smtpd", _INFO, text

    def _settled(self, event: Settled) -> list[Line]:
        message, entry = event.message, event.recipient
        relay = "sandbox" if entry.state is RecipientState.CAPTURED else "none"
        return [
            (
                "smtp",
                _INFO,
                f"{message.queue_id}: {recipient_of(entry.address, entry.original)}, "
                f"relay={relay}, delay=0, {shown_delays(_INSTANT)}, dsn=2.0.0, "
                f"status={STATUS[entry.state]} ({free_text(entry.reason or 'no reason given')})"
                f"{self._tail(message.subject, message.source)}",
            )
        ]

    def _outcome(self, event: Outcome) -> list[Line]:
        claimed, entry, change, report, at_ms = (
            event.claimed,
            event.recipient,
            event.change,
            event.report,
            event.at_ms,
        )
        uses = f"conn_use={report.session_uses}, " if report.session_uses > 1 else ""
        return [
            (
                "smtp",
                _INFO,
                f"{claimed.queue_id}: {recipient_of(entry.address, entry.original)}, "
                f"relay={escape(report.relay)}, {uses}"
                f"delay={shown_seconds((at_ms - claimed.accepted_at_ms) / 1000)}, "
                f"{shown_delays(report.delays)}, dsn={change.dsn or '4.0.0'}, "
                f"status={STATUS[change.state]} ({free_text(change.reply or 'no reply')})"
                f"{self._tail(claimed.subject, claimed.source)}",
            )
        ]

    def _removed(self, event: Removed) -> list[Line]:
        return [("qmgr", _INFO, f"{event.queue_id}: removed")]

    def _held(self, event: Held) -> list[Line]:
        return [("qmgr", _INFO, f"{event.claimed.queue_id}: held ({free_text(event.reason)})")]

    def _rejected(self, event: Rejected) -> list[Line]:
        return [
            (
                "smtpd",
                _INFO,
                f"NOQUEUE: reject: {event.stage} from {event.peer}: {free_text(event.reply)}; "
                f"from=<{shown_address(event.sender)}> proto={event.protocol} "
                f"helo=<{free_text(event.helo)}> command={free_text(event.command)}",
            )
        ]

    def _note(self, event: Note) -> list[Line]:
        return [(event.daemon, event.parts()[1], free_text(event.text))]

    def _tail(self, subject: str, source: Source) -> str:
        if not self._with_subject:
            return ""
        return f", subject={quoted(subject)}, source={quoted(origin_of(source))}"


_LINES: dict[type[Event], Callable[[PostfixForm, Any], list[Line]]] = {
    Accepted: PostfixForm._accepted,
    Settled: PostfixForm._settled,
    Outcome: PostfixForm._outcome,
    Removed: PostfixForm._removed,
    Held: PostfixForm._held,
    Rejected: PostfixForm._rejected,
    Note: PostfixForm._note,
}
