"""Local mail to messages: what a drop says, through the same policy as SMTP.

Nobody can be told "no" any more: the sendmail command has left. What SMTP would refuse is
therefore captured with its reason, or recorded as blocked, and the log says so.
"""

from __future__ import annotations

import pwd
from collections.abc import Iterator
from dataclasses import replace

from relaygw.errors import InvalidAddress
from relaygw.inbound.drop_file import Drop
from relaygw.inbound.intake import Intake, Origin, ResolvedRecipient, TooManyHops
from relaygw.mail.address import MAX_PATH_BYTES, check_address
from relaygw.mail.envelope import AcceptedMessage, Source
from relaygw.observe.escaping import escape
from relaygw.policy.recipients import Decision, Fate
from relaygw.settings.mode import Mode

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

    It is treated as in the gateway's mode, or in `mode`; `listener` stands for where it came in.
    What was left with more than `limit_bytes` of content is captured.
    """
    given = _user_name(drop.uid) if drop.sender is None else drop.sender
    recipients = [_resolve(intake, address, mode) for address in drop.recipients]
    sender = ""
    try:
        if given:
            _check(given)
            sender = intake.resolve_sender(given)
    except InvalidAddress as error:
        recipients = _captured(recipients, f"invalid sender {_shown(given)}: {error}")
    if limit_bytes is not None and drop.given_bytes > limit_bytes:
        recipients = _captured(recipients, f"larger than max_message_size, {limit_bytes} bytes")
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
    try:
        return intake.compose(
            sender=sender, recipients=recipients, content=drop.content, origin=origin
        )
    except TooManyHops as error:
        return intake.compose(
            sender=sender,
            recipients=_captured(recipients, f"mail loop: {error}"),
            content=drop.content,
            origin=origin,
            may_loop=True,
        )


def _resolve(intake: Intake, address: str, mode: Mode | None) -> ResolvedRecipient:
    try:
        _check(address)
        return intake.resolve_recipient(address, mode)
    except InvalidAddress as error:
        decision = Decision(Fate.CAPTURE, f"invalid address: {error}")
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


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid{uid}"
