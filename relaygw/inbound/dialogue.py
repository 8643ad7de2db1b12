"""What a session knows of its client so far, and how commands are refused.

Refusals are logged in Postfix's words. What may be a password is not: neither the argument of
AUTH, nor lines behind an AUTH that was refused, which a client may send without waiting.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from relaygw.inbound import replies
from relaygw.inbound.connection import Connection
from relaygw.inbound.front import Front
from relaygw.inbound.identity import Login
from relaygw.inbound.intake import ResolvedRecipient
from relaygw.observe.events import Rejected
from relaygw.settings.mode import Mode

MAX_ERRORS = 20  # as Postfix's smtpd_hard_error_limit


class Refusal(Exception):
    """A command is answered with this reply and counts as an error of the client."""


@dataclass(slots=True)
class Transaction:
    """One MAIL transaction."""

    sender: str
    smtputf8: bool
    recipients: list[ResolvedRecipient] = field(default_factory=list)
    seen: int = 0  # RCPT commands, refused ones too


class Dialogue(Connection):
    """The state of one SMTP session."""

    def __init__(self, front: Front, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(front, loop)
        self.helo = ""
        self.protocol = "SMTP"
        self.login: Login | None = None
        self.transaction: Transaction | None = None
        self.junk_commands = 0
        self.failed_logins = 0
        self.may_hold_password = False  # the line at hand, from AUTH to the next real command
        self.has_told_of_source = False
        self._errors = 0
        self._mode: Mode | None = None

    @property
    def is_in_transaction(self) -> bool:
        """True from MAIL until the content has arrived."""
        return self.transaction is not None

    @property
    def mode(self) -> Mode:
        """The mode that holds for this listener and user."""
        if self._mode is None:
            user = self.login.name if self.login is not None else None
            self._mode = self.front.intake.modes.of(self.front.name, user)
        return self._mode

    @property
    def transfer_protocol(self) -> str:
        """The `with` clause of a Received field (RFC 3848, RFC 6531)."""
        name = self.protocol
        if name == "ESMTP":
            name += ("S" if self.is_encrypted else "") + ("A" if self.login is not None else "")
        smtputf8 = self.transaction is not None and self.transaction.smtputf8
        return f"UTF8{name.lstrip('E')}" if smtputf8 else name

    def log_in(self, login: Login) -> None:
        """From now on this is `login`'s session."""
        self.login = login
        self._mode = None

    def forget(self) -> None:
        """Know nothing of the client any more: what it said before TLS may be forged."""
        self.helo, self.protocol = "", "SMTP"
        self.login = self.transaction = self._mode = None

    def refuse(self, line: bytes, reply: str) -> None:
        """Answer with `reply`, count an error and write a line of the log."""
        self._errors += 1
        if self._errors >= MAX_ERRORS and not self.is_done:
            reply = replies.TOO_MANY_ERRORS
            self.is_done = True
        self.say(reply)
        is_hidden = self.may_hold_password
        shown = "(hidden)" if is_hidden else line[:200].decode("utf-8", "backslashreplace")
        self.front.log.write(
            [
                Rejected(
                    stage="AUTH" if is_hidden else _stage(line),
                    peer=self.peer,
                    reply=reply,
                    sender=self.transaction.sender if self.transaction else "",
                    protocol=self.protocol,
                    helo=self.helo,
                    command=shown,
                )
            ]
        )


def _stage(line: bytes) -> str:
    """Return the verb of a command for the log, as far as it has one."""
    verb = line[:4].decode("ascii", "replace").strip().upper()
    return verb if verb.isascii() and verb.isalpha() else "UNKNOWN"
