"""The log as JSON: one object a line, in ASCII; keys of a kind are always there, times are UTC."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from relaygw.mail.clock import rfc3339
from relaygw.mail.envelope import AcceptedMessage, ClaimedDelivery, Recipient, RecipientUpdate
from relaygw.mail.state import DeliveryState, RecipientState
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
from relaygw.observe.postfix_form import JUDGED, STATUS, cut, dsn_of

_encode = json.JSONEncoder(separators=(",", ":")).encode  # printable ASCII: all else is escaped
Fields = dict[str, Any]


class JsonForm:
    """Objects with a time, a level, the name of the event, and what belongs to it."""

    def __init__(self, *, hostname: str, with_subject: bool) -> None:
        self._hostname = hostname
        self._with_subject = with_subject

    def lines(self, event: Event) -> list[Line]:
        """Return the lines of one event, one for the whole and one for each recipient of it."""
        return _LINES[type(event)](self, event)

    def _line(self, daemon: str, fields: Fields, level: Level = Level.INFO) -> Line:
        whole = {
            "ts": _now(),
            "level": level.name.lower(),
            **fields,
            "host": self._hostname,
            "daemon": daemon,
            "pid": os.getpid(),
        }
        return daemon, level, _encode(_shown(whole))

    def _about(
        self, mail: AcceptedMessage | ClaimedDelivery, daemon: str, event: str, fields: Fields
    ) -> Line:
        source = mail.source
        known = {name: value for name in _SOURCE if (value := getattr(source, name)) is not None}
        whole = {"event": event, "qid": mail.queue_id, "from": mail.sender, **fields}
        if self._with_subject:
            whole["subject"] = mail.subject
        whole["source"] = _shown(known)
        return self._line(daemon, whole)

    def _accepted(self, event: Accepted) -> list[Line]:
        message = event.message
        source = message.source
        brought_by = "smtpd"
        if source.client is None:  # a notice has no uid
            brought_by = "bounce" if source.uid is None else "pickup"
        accepted = {
            "nrcpt": sum(len(part.recipients) for part in message.deliveries),
            "size": message.size_bytes,
            "message_id": message.message_id,
            "routes": [part.route for part in message.deliveries],
            "mode": message.mode,
        }
        lines = [self._about(message, brought_by, "accepted", accepted)]
        for part in message.deliveries:
            for entry in part.recipients:
                if entry.state is not RecipientState.PENDING:
                    settled = {
                        "to": entry.address,
                        "orig_to": entry.original,
                        "provider": None,
                        "route": part.route,
                        "relay": None,
                        "delay": 0.0,
                        "dsn": "2.0.0",
                        "status": STATUS[entry.state],
                        "reply": entry.reason,
                        "attempt": 0,
                    }
                    lines.append(self._about(message, "smtp", "outcome", settled))
        return lines

    def _attempted(self, event: Attempted) -> list[Line]:
        claimed, update = event.claimed, event.update
        entries = {entry.rcpt_no: entry for entry in claimed.recipients}
        copy = accepted_copy(event) if claimed.released else None
        lines = [] if copy is None else self._accepted(copy)
        lines += [
            self._about(
                claimed, "smtp", "outcome", _outcome(event, entries[change.rcpt_no], change)
            )
            for change in update.recipients
        ]
        if update.state is DeliveryState.FINISHED:
            lines.append(self._line("qmgr", {"event": "removed", "qid": claimed.queue_id}))
        elif update.state is DeliveryState.HELD:
            held = {
                "provider": claimed.provider,
                "route": claimed.route,
                "reason": update.reason or "",
            }
            lines.append(self._about(claimed, "qmgr", "held", held))
        return lines

    def _judged(self, event: Judged) -> list[Line]:
        judged = {
            "event": "verdict",
            "qid": event.queue_id,
            "from": event.sender,
            "to": event.address,
            "provider": event.provider,
            "delay": max(0.0, (event.at_ms - event.accepted_at_ms) / 1000),
            "dsn": dsn_of(event),
            "status": JUDGED[event.kind],
            "verdict": event.kind.value,
            "reply": event.detail,
            "reported_at": rfc3339(event.at_ms),
        }
        if self._with_subject:
            judged["subject"] = event.subject
        return [self._line("smtp", judged)]

    def _rejected(self, event: Rejected) -> list[Line]:
        rejected = {
            "event": "reject",
            "stage": event.stage,
            "client": event.peer,
            "reply": event.reply,
            "from": event.sender,
            "proto": event.protocol,
            "helo": event.helo,
            "command": event.command,
        }
        return [self._line("smtpd", rejected)]

    def _note(self, event: Note) -> list[Line]:
        queue_id, level, text = event.parts()
        note = {"event": "note", "qid": queue_id, "message": text}
        return [self._line(event.daemon, note, level)]


_SOURCE = ("client", "helo", "user", "listener", "uid", "script", "cwd", "host")
_LINES: dict[type[Event], Callable[[JsonForm, Any], list[Line]]] = {
    Accepted: JsonForm._accepted,
    Attempted: JsonForm._attempted,
    Judged: JsonForm._judged,
    Rejected: JsonForm._rejected,
    Note: JsonForm._note,
}


def _outcome(event: Attempted, entry: Recipient, change: RecipientUpdate) -> Fields:
    claimed, report = event.claimed, event.report_on(change)
    delays = report.delays
    return {
        "to": entry.address,
        "orig_to": entry.original,
        "provider": change.provider,
        "route": claimed.route,
        "relay": report.relay,
        "delay": max(0.0, (event.at_ms - claimed.accepted_at_ms) / 1000),
        "delays": {
            "intake": delays.intake_s,
            "queue": delays.queue_s,
            "connect": delays.connect_s,
            "transmit": delays.transmit_s,
        },
        "dsn": change.dsn or "4.0.0",
        "status": STATUS[change.state],
        "reply": change.reply,
        "attempt": entry.attempts + change.charged,
    }


def _shown(fields: Fields) -> Fields:
    """Return the fields with texts that are not too long and have no halves of characters."""
    return {key: _text(value) if isinstance(value, str) else value for key, value in fields.items()}


def _text(value: str) -> str:
    shown = cut(value)
    return shown if shown.isascii() else shown.encode("utf-8", "backslashreplace").decode()


def _now() -> str:
    second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{_utc(second)}.{nanoseconds // 1_000_000:03d}Z"


@lru_cache(maxsize=1)
def _utc(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
