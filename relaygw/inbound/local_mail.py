"""Mail that no SMTP client brings: of local programs, and exported mail that is imported again.

What SMTP would refuse is captured with its reason, or recorded as blocked, and the log says so.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from relaygw.errors import InvalidAddress
from relaygw.inbound.content import ReceivedContent
from relaygw.inbound.drop_file import Drop, with_last_end
from relaygw.inbound.intake import Intake, Origin, ResolvedRecipient, TooManyHops
from relaygw.mail.address import MAX_PATH_BYTES, check_address
from relaygw.mail.content import normalise_line_ends
from relaygw.mail.drop import COMPLETE_SUFFIX
from relaygw.mail.envelope import AcceptedMessage, Source
from relaygw.mail.exported import Exported, NotExported
from relaygw.mail.state import CaptureCode
from relaygw.mail.words import escape
from relaygw.policy.recipients import Decision, Fate, strictest
from relaygw.settings.section import Mode

IMPORT_LISTENER = "import"
"""Where imported mail came in: no listener has this name, so that the mode of its acceptance holds
at each attempt, too (policy.recipients)."""
_IMPORT_KEY = "import-"
_SHOWN_CHARACTERS = 320
_MAX_CWD_CHARACTERS = 1024


def compose_local(
    intake: Intake,
    drop: Drop,
    *,
    listener: str | None = None,
    mode: Mode | None = None,
    limit_bytes: int | None = None,
) -> tuple[AcceptedMessage, Iterator[bytes]]:
    """Return the message of a drop, and for large content the chunks to store ahead of it.

    `mode` stands for the gateway's, `listener` for where it came in. Over `limit_bytes`: captured.
    """
    given = drop.sender
    if given is None:
        try:
            given = pwd.getpwuid(drop.uid).pw_name
        except KeyError:
            given = f"uid{drop.uid}"
    recipients = [_resolve(intake, address, mode) for address in drop.recipients]
    sender = ""
    try:
        if given:
            _check(given)
            sender = intake.resolve_sender(given)
    except InvalidAddress as error:
        recipients = _captured(recipients, f"invalid sender {_shown(given)}: {error}")
    if limit_bytes is not None and drop.given_bytes > limit_bytes:
        reason = CaptureCode.TOO_LARGE.sentence(f", {limit_bytes} bytes")
        recipients = _captured(recipients, reason)
    origin = Origin(
        source=Source(
            listener=listener,
            uid=drop.uid,
            cwd=None if drop.cwd is None else escape(drop.cwd[:_MAX_CWD_CHARACTERS]),
        ),
        client_key=f"uid:{drop.uid}",
        protocol="local",
        smtputf8=not (sender.isascii() and all(one.address.isascii() for one in recipients)),
        mode=mode,
        drop_id=drop.drop_id,
        given_sender=given,
        dsn=drop.dsn,
    )
    compose = partial(intake.compose, sender=sender, content=drop.content, origin=origin)
    try:
        return compose(recipients=recipients)
    except TooManyHops as error:
        recipients = _captured(recipients, CaptureCode.LOOP.sentence(f": {error}"))
        return compose(recipients=recipients, may_loop=True)


def _resolve(intake: Intake, address: str, mode: Mode | None) -> ResolvedRecipient:
    try:
        _check(address)
        return intake.resolve_recipient(address, mode)
    except InvalidAddress as error:
        reason = CaptureCode.INVALID_ADDRESS.sentence(f": {error}")
        decision = Decision(Fate.CAPTURE, reason)
        return ResolvedRecipient(_shown(address), None, decision, is_valid=False)


def _captured(recipients: list[ResolvedRecipient], reason: str) -> list[ResolvedRecipient]:
    """Return the recipients with those that would be sent to captured instead."""
    return [
        replace(one, decision=Decision(Fate.CAPTURE, reason))
        if one.decision.fate is Fate.DELIVER
        else one
        for one in recipients
    ]


def _check(address: str) -> None:
    if len(address.encode()) > MAX_PATH_BYTES:
        raise InvalidAddress("address too long")
    check_address(address)


def _shown(address: str) -> str:
    return escape(address[:_SHOWN_CHARACTERS])


class Importer:
    """Makes messages to be stored of exported ones; `limit_bytes` is the largest content.

    Policy is that of now, the mode the stricter of now and then; a key lets each in once.
    """

    def __init__(self, intake: Intake, *, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.has_space = intake.has_space
        self._intake = intake
        self._seen: dict[str, int] = {}

    @contextmanager
    def composed(self, mail: Exported) -> Iterator[tuple[AcceptedMessage, Iterator[bytes]]]:
        """Yield the message, and for large content the chunks to store ahead of it.

        Equal messages of one input are several, unless they have an identity. Raises NotExported
        for what cannot be a message.
        """
        if not mail.recipients:
            raise NotExported("nobody is named who is to have it; give --recipient")
        if mail.sender is None:
            raise NotExported("no sender is named; give --sender")
        if len(mail.content) > self.limit_bytes:
            raise NotExported(f"larger than max_message_size, {self.limit_bytes} bytes")
        mode = self._mode_of(mail)
        name = mail.identity
        if not name:
            key = mail.key()
            number = self._seen[key] = self._seen.get(key, 0) + 1
            name = f"{key}-{number}"
        content = ReceivedContent(self._intake.state_dir)
        content.add(with_last_end(normalise_line_ends(mail.content)))
        content.read_head()
        drop = Drop(
            name=f"{_IMPORT_KEY}{name}{COMPLETE_SUFFIX}",
            uid=os.getuid(),
            sender=mail.sender,
            recipients=mail.recipients,
            content=content,
            dsn=mail.dsn,
        )
        try:
            yield compose_local(self._intake, drop, listener=IMPORT_LISTENER, mode=mode)
        finally:
            drop.content.close()

    def _mode_of(self, mail: Exported) -> Mode:
        now = self._intake.modes.of(None, None)
        if mail.mode is None:
            return now
        try:
            return strictest(now, Mode(mail.mode))
        except ValueError:
            known = ", ".join(Mode)
            raise NotExported(f"mode {mail.mode[:40]!r} is none of {known}") from None
