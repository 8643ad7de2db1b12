"""The log as JSON: one object for each event, on one line, in ASCII.

Keys that a kind of event has are always there, null where nothing is known. Times are UTC,
`delay` and `delays` are seconds.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from relaygw.mail.envelope import Source
from relaygw.mail.outcome import AttemptDelays
from relaygw.observe.escaping import cut
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

_encode = json.JSONEncoder(separators=(",", ":")).encode  # printable ASCII: all else is escaped
Fields = dict[str, Any]


class JsonForm:
    """Objects with a time, a level, the name of the event, and what belongs to it."""

    def __init__(self, *, hostname: str, with_subject: bool) -> None:
        self._hostname = hostname
        self._with_subject = with_subject

    def lines(self, event: Event) -> list[Line]:
        """Return the one line of one event."""
        daemon, level, fields = _FIELDS[type(event)](self, event)
        whole = {
            "ts": _now(),
            "level": level.name.lower(),
            **fields,
            "host": self._hostname,
            "daemon": daemon,
            "pid": os.getpid(),
        }
        return [(daemon, level, _encode(_shown(whole)))]

    def _accepted(self, event: Accepted) -> tuple[str, Level, Fields]:
        message = event.message
        is_local = message.source.uid is not None and message.source.client is None
        return (
            "pickup" if is_local else "smtpd",
            Level.INFO,
            {
                "event": "accepted",
                "qid": message.queue_id,
                "from": message.sender,
                "nrcpt": sum(len(part.recipients) for part in message.deliveries),
                "size": message.size_bytes,
                "message_id": message.message_id,
                "routes": [part.route for part in message.deliveries],
                "mode": message.mode,
                **self._tail(message.subject, message.source),
            },
        )

    def _settled(self, event: Settled) -> tuple[str, Level, Fields]:
        message, entry = event.message, event.recipient
        return (
            "smtp",
            Level.INFO,
            {
                "event": "outcome",
                "qid": message.queue_id,
                "from": message.sender,
                "to": entry.address,
                "orig_to": entry.original,
                "provider": None,
                "route": event.route,
                "relay": None,
                "delay": 0.0,
                "dsn": "2.0.0",
                "status": STATUS[entry.state],
                "reply": entry.reason,
                "attempt": 0,
                **self._tail(message.subject, message.source),
            },
        )

    def _outcome(self, event: Outcome) -> tuple[str, Level, Fields]:
        claimed, entry, change = event.claimed, event.recipient, event.change
        return (
            "smtp",
            Level.INFO,
            {
                "event": "outcome",
                "qid": claimed.queue_id,
                "from": claimed.sender,
                "to": entry.address,
                "orig_to": entry.original,
                "provider": change.provider,
                "route": claimed.route,
                "relay": event.report.relay,
                "delay": max(0.0, (event.at_ms - claimed.accepted_at_ms) / 1000),
                "delays": _delays(event.report.delays),
                "dsn": change.dsn or "4.0.0",
                "status": STATUS[change.state],
                "reply": change.reply,
                "attempt": entry.attempts + change.charged,
                **self._tail(claimed.subject, claimed.source),
            },
        )

    def _removed(self, event: Removed) -> tuple[str, Level, Fields]:
        return "qmgr", Level.INFO, {"event": "removed", "qid": event.queue_id}

    def _held(self, event: Held) -> tuple[str, Level, Fields]:
        claimed = event.claimed
        return (
            "qmgr",
            Level.INFO,
            {
                "event": "held",
                "qid": claimed.queue_id,
                "from": claimed.sender,
                "provider": claimed.provider,
                "route": claimed.route,
                "reason": event.reason,
                **self._tail(claimed.subject, claimed.source),
            },
        )

    def _rejected(self, event: Rejected) -> tuple[str, Level, Fields]:
        return (
            "smtpd",
            Level.INFO,
            {
                "event": "reject",
                "stage": event.stage,
                "client": event.peer,
                "reply": event.reply,
                "from": event.sender,
                "proto": event.protocol,
                "helo": event.helo,
                "command": event.command,
            },
        )

    def _note(self, event: Note) -> tuple[str, Level, Fields]:
        queue_id, level, text = event.parts()
        return event.daemon, level, {"event": "note", "qid": queue_id, "message": text}

    def _tail(self, subject: str, source: Source) -> Fields:
        known = {name: value for name in _SOURCE if (value := getattr(source, name)) is not None}
        known = _shown(known)
        return {"subject": subject, "source": known} if self._with_subject else {"source": known}


_SOURCE = ("client", "helo", "user", "listener", "uid", "script", "cwd", "host")
_FIELDS: dict[type[Event], Callable[[JsonForm, Any], tuple[str, Level, Fields]]] = {
    Accepted: JsonForm._accepted,
    Settled: JsonForm._settled,
    Outcome: JsonForm._outcome,
    Removed: JsonForm._removed,
    Held: JsonForm._held,
    Rejected: JsonForm._rejected,
    Note: JsonForm._note,
}


def _shown(fields: Fields) -> Fields:
    """Return the fields with texts that are not too long and have no halves of characters."""
    return {key: _text(value) if isinstance(value, str) else value for key, value in fields.items()}


def _text(value: str) -> str:
    shown = cut(value)
    return shown if shown.isascii() else shown.encode("utf-8", "backslashreplace").decode()


def _delays(delays: AttemptDelays) -> Fields:
    return {
        "intake": delays.intake_s,
        "queue": delays.queue_s,
        "connect": delays.connect_s,
        "transmit": delays.transmit_s,
    }


def _now() -> str:
    second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{_utc(second)}.{nanoseconds // 1_000_000:03d}Z"


@lru_cache(maxsize=1)
def _utc(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
