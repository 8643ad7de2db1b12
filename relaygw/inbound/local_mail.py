"""Mail that no SMTP client brings: of local programs, imported, sent again, and notices.

What SMTP would refuse is captured with its reason, or recorded as blocked, and the log says so.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from email.utils import formatdate
from functools import partial
from itertools import chain

from relaygw.errors import InvalidAddress
from relaygw.inbound.content import ReceivedContent
from relaygw.inbound.drop_file import Drop, with_last_end
from relaygw.inbound.intake import (
    LOCAL,
    Header,
    HeaderTooLong,
    Intake,
    Origin,
    ResolvedRecipient,
    TooManyHops,
)
from relaygw.mail.address import MAX_PATH_BYTES, check_address
from relaygw.mail.content import header_end, header_fields, normalise_line_ends
from relaygw.mail.drop import COMPLETE_SUFFIX
from relaygw.mail.envelope import AcceptedMessage, Released, Source
from relaygw.mail.exported import Exported, NotExported
from relaygw.mail.notice import DueNotice
from relaygw.mail.state import CaptureCode
from relaygw.mail.words import escape
from relaygw.policy.recipients import Decision, Fate, strictest
from relaygw.settings.listeners import Listener
from relaygw.settings.section import Mode
from relaygw.store.queue_entry import QueueEntry

IMPORT_LISTENER = "import"
"""Where imported mail came in: no listener has this name, so that the mode of its acceptance holds
at each attempt, too (policy.recipients)."""
_IMPORT_KEY = "import-"
_RESENT_KEY = "resend"
_NOTICE_KEY = "notice"
_SIGNATURES = ("dkim-signature", "arc-message-signature")
_SHOWN_CHARACTERS = 320
_MAX_ADDED = 10_000  # recipients of one mail that were not named, but are what others become
_MAX_CWD_CHARACTERS = 1024


def compose_local(
    intake: Intake,
    drop: Drop,
    header: Header,
    *,
    listener: str | None = None,
    mode: Mode | None = None,
    limit_bytes: int | None = None,
) -> tuple[AcceptedMessage, Iterator[bytes]]:
    """Return the message of a drop, and for large content the chunks to store ahead of it.

    `mode` stands for the gateway's, `listener` for where it came in. Over `limit_bytes`, or with a
    header that is too long: captured.
    """
    given = drop.sender
    if given is None:
        try:
            given = pwd.getpwuid(drop.uid).pw_name
        except KeyError:
            given = f"uid{drop.uid}"
    sender, reason = "", None  # the reason to capture what would be sent
    if limit_bytes is not None and drop.given_bytes > limit_bytes:
        reason = CaptureCode.TOO_LARGE.sentence(f", {limit_bytes} bytes")
    try:
        if given:
            _check(given)
        sender = intake.resolve_sender(given)
    except InvalidAddress as error:
        reason = f"invalid sender {_shown(given)}: {error}"
    recipients = _resolve(intake, drop.recipients, mode)
    if reason is not None:
        recipients = _captured(recipients, reason)
    origin = Origin(
        source=Source(
            listener=listener,
            uid=drop.uid,
            cwd=None if drop.cwd is None else escape(drop.cwd[:_MAX_CWD_CHARACTERS]),
        ),
        client_key=f"uid:{drop.uid}",
        protocol=LOCAL,
        smtputf8=_needs_smtputf8(sender, recipients),
        mode=mode,
        drop_id=drop.drop_id,
        given_sender=given,
        dsn=drop.dsn,
        handed_over_ms=drop.handed_over_ms,
        is_new=listener is None and reason is None,
    )
    return _composed(intake, sender, recipients, drop.content, header, origin)


def _composed(
    intake: Intake,
    sender: str,
    recipients: list[ResolvedRecipient],
    content: ReceivedContent,
    header: Header,
    origin: Origin,
) -> tuple[AcceptedMessage, Iterator[bytes]]:
    compose = partial(intake.compose, sender=sender, content=content, header=header, origin=origin)
    try:
        return compose(recipients=recipients)
    except TooManyHops as error:
        reason = CaptureCode.LOOP.sentence(f": {error}")
    except HeaderTooLong as error:
        reason = CaptureCode.HEADER_TOO_LONG.sentence(f", {error}")
    return compose(recipients=_captured(recipients, reason), is_captured=True)


def _resolve(
    intake: Intake, addresses: Iterable[str], mode: Mode | None
) -> list[ResolvedRecipient]:
    found: list[ResolvedRecipient] = []
    for position, address in enumerate(addresses):
        try:
            _check(address)
            if len(found) - position >= _MAX_ADDED:
                raise InvalidAddress(f"{_MAX_ADDED} more are sent to by rewrite already")
            found += intake.resolve_recipients(address, mode)
        except InvalidAddress as error:
            reason = CaptureCode.INVALID_ADDRESS.sentence(f": {error}")
            decision = Decision(Fate.CAPTURE, reason)
            found.append(ResolvedRecipient(_shown(address), None, decision, is_valid=False))
    return found


def _captured(recipients: list[ResolvedRecipient], reason: str) -> list[ResolvedRecipient]:
    """Return the recipients with those that would be sent to captured instead."""
    return [
        replace(recipient, decision=Decision(Fate.CAPTURE, reason))
        if recipient.decision.fate is Fate.DELIVER
        else recipient
        for recipient in recipients
    ]


def _check(address: str) -> None:
    if len(address.encode()) > MAX_PATH_BYTES:
        raise InvalidAddress("address too long")
    check_address(address)


def _shown(address: str) -> str:
    return escape(address[:_SHOWN_CHARACTERS])


def _needs_smtputf8(sender: str, recipients: Iterable[ResolvedRecipient]) -> bool:
    return not (sender.isascii() and all(recipient.address.isascii() for recipient in recipients))


class Importer:
    """Makes messages to be stored of exported ones, with what the listeners take at most.

    Policy is that of now, the mode the stricter of now and then; a key lets each in once.
    """

    def __init__(self, intake: Intake, listeners: Sequence[Listener]) -> None:
        self.limit_bytes = max((listener.max_message_size for listener in listeners), default=0)
        self._header_bytes = max((listener.max_header_size for listener in listeners), default=0)
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
            raise NotExported("no recipient is named; give --recipient")
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
        header = self._intake.header_of(content, limit_bytes=self._header_bytes)
        try:
            if header.is_too_long:
                raise NotExported(f"header longer than max_header_size, {self._header_bytes} bytes")
            yield compose_local(self._intake, drop, header, listener=IMPORT_LISTENER, mode=mode)
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
            raise NotExported(f"mode {mail.mode[:40]!r} is not one of {known}") from None


class Resender:
    """Makes new messages of the content of accepted ones: see operations.resend.

    Policy is that of now, the mode the stricter of now and then. Below what is added at the top
    each byte of the content is as it was, unless `rewrite` of now changes it.
    """

    def __init__(self, intake: Intake) -> None:
        self.has_space = intake.has_space
        self._intake = intake

    @contextmanager
    def composed(
        self, entry: QueueEntry, content: Iterator[bytes], recipients: Sequence[str], drop_id: str
    ) -> Iterator[tuple[AcceptedMessage, Iterator[bytes]]]:
        """Yield the message, and for large content the chunks to store ahead of it."""
        intake, source, then = self._intake, entry.source, Mode(entry.mode)
        of_now = intake.modes.of(source.listener, source.user, accepted_in=then)
        mode = strictest(of_now, then)
        resolved = _resolve(intake, recipients, mode)
        sender = intake.resolve_sender(entry.sender)
        origin = Origin(
            # who sends it again stands in Received; routes go by where it first came in
            source=Source(uid=os.getuid(), listener=source.listener, user=source.user),
            client_key=_RESENT_KEY,
            protocol=LOCAL,
            smtputf8=entry.smtputf8 or _needs_smtputf8(sender, resolved),
            mode=mode,
            drop_id=drop_id,
            given_sender=entry.sender,
        )
        received = ReceivedContent(intake.state_dir)
        try:
            head = next(content, b"")
            received.add(_resent_fields(head, sender, drop_id, intake.hostname))
            for piece in chain([head], content):
                received.add(piece)
            received.read_head()
            header = intake.header_of(received, may_be_bare=source.listener is None)
            message, chunks = _composed(intake, sender, resolved, received, header, origin)
            parts = tuple(replace(part, released=Released.RESENT) for part in message.deliveries)
            yield replace(message, source=source, deliveries=parts), chunks
        finally:
            received.close()


class NoticeComposer:
    """Makes messages to be stored of notices to senders, see delivery.notices, and of digests.

    Policy is that of now, the mode the stricter of now and of when the mail came in that it tells
    of; at each attempt as if it had come in the same way.
    """

    def __init__(self, intake: Intake) -> None:
        self.hostname = intake.hostname
        self.has_space = intake.has_space
        self._intake = intake

    def compose(
        self, notice: DueNotice, target: str, content: bytes, drop_id: str
    ) -> AcceptedMessage:
        """Return the message that tells `target`."""
        modes, then = self._intake.modes, Mode(notice.mode)
        source = Source(listener=notice.source_listener, user=notice.source_user)
        mode = strictest(modes.of(source.listener, source.user, accepted_in=then), then)
        return self._own("", target, content, drop_id, source=source, mode=mode)

    def compose_own(
        self, sender: str, target: str, content: bytes, drop_id: str
    ) -> AcceptedMessage:
        """Return a message about no other: see alerting.digest_sender."""
        mode = self._intake.modes.of(None, None)
        return self._own(sender, target, content, drop_id, source=Source(), mode=mode)

    def _own(
        self, sender: str, target: str, content: bytes, drop_id: str, *, source: Source, mode: Mode
    ) -> AcceptedMessage:
        intake = self._intake
        recipients = _resolve(intake, [target], mode)
        origin = Origin(
            source=source,
            client_key=_NOTICE_KEY,
            protocol=LOCAL,
            smtputf8=_needs_smtputf8(f"{sender}{target}", recipients),
            mode=mode,
            drop_id=drop_id,
        )
        received = ReceivedContent(intake.state_dir)
        try:
            received.add(content)
            received.read_head()
            header = intake.header_of(received, may_be_bare=source.listener is None)
            message, _ = _composed(intake, sender, recipients, received, header, origin)
            return replace(message, source=source)
        finally:
            received.close()


def _resent_fields(head: bytes, sender: str, name: str, hostname: str) -> bytes:
    """Return the fields of RFC 5322 section 3.6.6; none where they would break a signature.

    Resent-To would tell blind recipients of each other, and programs read recipients there.
    """
    end = header_end(head)
    for field in header_fields(head, 0, end, names=_SIGNATURES):
        if b"resent-" in head[field.value_start : field.value_end].lower():
            return b""  # it vouches for that there are none
    by = sender if sender and sender.isascii() else f"postmaster@{hostname}"
    return (
        f"Resent-Date: {formatdate(localtime=True)}\r\n"
        f"Resent-From: <{by}>\r\n"
        f"Resent-Message-ID: <{name}@{hostname}>\r\n"
    ).encode("ascii")
