"""The mail log in Postfix's grammar, so that pflogsumm and the like read it unchanged.

Several lines go out in one write. Whatever came from outside is escaped: one record is
one line. A log that cannot be written never stops mail.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Sequence
from typing import IO

from relaygw.mail.envelope import AcceptedMessage, ClaimedDelivery, RecipientUpdate
from relaygw.mail.outcome import AttemptDelays
from relaygw.mail.state import RecipientState

SYSLOG_NAME = "relaygw"
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_STATUS = {
    RecipientState.DELIVERED: "sent",
    RecipientState.PENDING: "deferred",
    RecipientState.BOUNCED: "bounced",
    RecipientState.EXPIRED: "expired",
    RecipientState.CAPTURED: "captured",
    RecipientState.BLOCKED: "blocked",
    RecipientState.CANCELLED: "deleted",
}


def escape(text: str) -> str:
    """Return `text` with every control character and line separator spelled out."""
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class MailLog:
    """Writes log lines of one process."""

    def __init__(self, stream: IO[str], *, hostname: str, with_subject: bool) -> None:
        self._stream = stream
        self._host = hostname.partition(".")[0]
        self._pid = os.getpid()
        self._with_subject = with_subject
        self._second = 0
        self._stamp = ""

    def write(self, lines: Sequence[tuple[str, str]]) -> None:
        """Write (daemon, text) pairs; the texts must be escaped already."""
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._stamp = time.strftime("%b %e %H:%M:%S", time.localtime(now))
        head = f"{self._stamp} {self._host} {SYSLOG_NAME}/"
        record = "".join(f"{head}{daemon}[{self._pid}]: {text}\n" for daemon, text in lines)
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(record)
            self._stream.flush()

    def note(self, daemon: str, text: str) -> None:
        """Write one line of free text."""
        self.write([(daemon, escape(text))])

    def accepted(self, messages: Sequence[AcceptedMessage]) -> None:
        """Write what Postfix's smtpd or pickup, cleanup and qmgr say of new messages."""
        lines: list[tuple[str, str]] = []
        for message in messages:
            queue_id = message.queue_id
            recipients = [entry for part in message.deliveries for entry in part.recipients]
            lines += (
                _arrival(message),
                ("cleanup", f"{queue_id}: message-id={escape(message.message_id)}"),
                (
                    "qmgr",
                    f"{queue_id}: from=<{escape(message.sender)}>, size={message.size_bytes}, "
                    f"nrcpt={len(recipients)} (queue active)",
                ),
            )
            lines += [
                (
                    "smtp",
                    f"{queue_id}: to=<{escape(entry.address)}>, {_original(entry.original)}"
                    f"relay=sandbox, delay=0, delays=0/0/0/0, dsn=2.0.0, "
                    f"status={_STATUS[entry.state]} ({escape(entry.reason or '')})"
                    f"{self._subject(message.subject)}",
                )
                for entry in recipients
                if entry.state is not RecipientState.PENDING
            ]
        self.write(lines)

    def outcome(
        self,
        claimed: ClaimedDelivery,
        change: RecipientUpdate,
        *,
        relay: str,
        delays: AttemptDelays,
        now_ms: int,
        session_uses: int = 1,
    ) -> tuple[str, str]:
        """Return the line that every operator greps: one recipient, one attempt."""
        recipient = next(r for r in claimed.recipients if r.rcpt_no == change.rcpt_no)
        uses = f"conn_use={session_uses}, " if session_uses > 1 else ""
        parts = (delays.intake_s, delays.queue_s, delays.connect_s, delays.transmit_s)
        return (
            "smtp",
            f"{claimed.queue_id}: to=<{escape(recipient.address)}>, "
            f"{_original(recipient.original)}relay={escape(relay)}, {uses}"
            f"delay={_seconds((now_ms - claimed.accepted_at_ms) / 1000)}, "
            f"delays={'/'.join(map(_seconds, parts))}, "
            f"dsn={change.dsn or '4.0.0'}, status={_STATUS[change.state]} "
            f"({escape(change.reply or '')}){self._subject(claimed.subject)}",
        )

    def _subject(self, subject: str) -> str:
        return f', subject="{escape(subject)}"' if self._with_subject else ""


def removed(queue_id: str) -> tuple[str, str]:
    """Return the line for a message whose last recipient is done."""
    return "qmgr", f"{queue_id}: removed"


def _original(original: str | None) -> str:
    return f"orig_to=<{escape(original)}>, " if original else ""


def _arrival(message: AcceptedMessage) -> tuple[str, str]:
    source = message.source
    if source.uid is not None and source.client is None:
        sender = escape(message.given_sender)
        return "pickup", f"{message.queue_id}: uid={source.uid} from=<{sender}>"
    login = f", sasl_username={escape(source.user)}" if source.user and not source.host else ""
    return "smtpd", f"{message.queue_id}: client=unknown[{source.client}]{login}"


def _seconds(value: float) -> str:
    """Format as Postfix does: two significant digits below ten, else whole seconds."""
    if value >= 10:
        return str(round(value))
    return f"{max(value, 0.0):.2g}"
