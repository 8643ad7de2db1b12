"""From an envelope and content to a message: policy applied, source judged, looked at by a screen.

Every way in (SMTP, the maildrop, an import) goes through here, so that none has rules of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from email.utils import formatdate
from hashlib import sha256
from itertools import chain, compress
from pathlib import Path
from typing import NamedTuple

from relaygw.clients import is_trusted, parse_client
from relaygw.errors import RelaygwError
from relaygw.inbound.content import (
    CHUNK_BYTES,
    LONG_HEADER_BYTES,
    ReceivedContent,
    without_late_fields,
)
from relaygw.inbound.mail_classes import MailClasses
from relaygw.inbound.screen import Screen, ScreenHold, Wishes
from relaygw.mail.address import folded, mailbox
from relaygw.mail.clock import clock_ms
from relaygw.mail.content import (
    READ_HEADER_BYTES,
    HeaderFacts,
    has_long_line,
    link_value,
    read_header,
    without_fields,
)
from relaygw.mail.dsn_request import NEVER, NO_REQUEST, DsnRequest
from relaygw.mail.envelope import AcceptedMessage, NewDelivery, NewRecipient, Source
from relaygw.mail.queue_id import QueueIdSource
from relaygw.mail.source_header import parse_source
from relaygw.mail.state import CaptureCode, RecipientState
from relaygw.policy.recipients import Decision, Fate, Modes, RecipientPolicy, strictest
from relaygw.policy.rewriting import Rewriter
from relaygw.policy.router import CAPTURE_ROUTE, Router
from relaygw.policy.storms import fingerprint
from relaygw.settings.model import Settings
from relaygw.settings.routes import Stream
from relaygw.settings.section import Mode, Network
from relaygw.volume import Room

LOCAL = "local"  # the protocol of what no SMTP client brought
MAX_HOPS = 50
_STATES = {
    Fate.DELIVER: RecipientState.PENDING,
    Fate.CAPTURE: RecipientState.CAPTURED,
    Fate.DROP: RecipientState.BLOCKED,
    Fate.REJECT: RecipientState.BLOCKED,  # where the sender cannot be told any more
}
_BOUNCE_MAIL = Decision(Fate.CAPTURE, CaptureCode.BOUNCE_MAIL.sentence())


class TooManyHops(RelaygwError):
    """The message has gone round in a loop."""


class HeaderTooLong(RelaygwError):
    """The header is longer than is taken; the text says how many bytes are."""


class Header(NamedTuple):
    """The header of a message that comes in, read to its end, and what is kept of it."""

    facts: HeaderFacts
    kept: bytes  # rewritten, without the fields that relaygw alone writes
    is_whole: bool  # False: it goes on behind what was read
    limit_bytes: int

    @property
    def is_too_long(self) -> bool:
        """True for more than is taken, also once it is rewritten."""
        return not self.is_whole or max(self.facts.end, len(self.kept)) > self.limit_bytes


@dataclass(frozen=True, slots=True)
class ResolvedRecipient:
    """A recipient after rewriting and policy."""

    address: str
    original: str | None
    decision: Decision
    is_valid: bool = True  # False: the address cannot be read, so no route is looked up
    dsn_notify: str | None = None  # as its own RCPT says; see mail.address
    dsn_orcpt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """How a message came in, for its Received field and its record."""

    source: Source
    client_key: str
    protocol: str  # the `with` clause of RFC 3848
    smtputf8: bool = False
    mode: Mode | None = None  # of its listener or user; the gateway's
    drop_id: str | None = None  # of the file in the maildrop that it came in
    given_sender: str = ""  # before rewriting
    dsn: DsnRequest = NO_REQUEST
    refused_recipients: int = 0  # before these
    handed_over_ms: int | None = None  # to the maildrop
    is_new: bool = False  # a client hands it over to be sent: it is archived


class Intake:
    """The settings of acceptance, compiled once per process."""

    def __init__(
        self,
        settings: Settings,
        *,
        state_dir: Path,
        classes: MailClasses | None = None,  # of a front that counts
        screen: Screen | None = None,
        takes_once: bool = False,  # exact duplicates, see `duplicates`
    ) -> None:
        self._class_of = _no_class if classes is None else classes.of
        self._screen = screen
        self._content_wishes = Wishes(settings.content_check)
        self.takes_once = takes_once
        self.hostname = settings.hostname
        self.state_dir = state_dir
        self.modes = Modes(settings)
        self._mode = settings.mode
        queue = settings.queue
        self.room = Room(
            state_dir, least_share=queue.min_free, is_queue_elsewhere=queue.is_postgres
        )
        self.has_space = self.room.is_left
        self._router = Router(settings.routes)
        self._link_header = settings.web.link_header or ""
        names = filter(None, [self._link_header.lower()])
        self._wanted = self._router.header_names.union(names)
        self._policy = RecipientPolicy(settings.mode, settings.recipients)
        self._rewriter = Rewriter(settings.rewrite, settings.hostname)
        inbound = settings.bounces.inbound
        self._bounces_to = None if inbound is None else folded(inbound)
        self._archive_to = settings.archive_to
        self.resolve_sender = self._rewriter.sender
        self._trusted: dict[str, tuple[Network, ...]] = {}  # by listener: whose word is taken
        for listener in settings.listeners:
            name, networks = str(listener.bind), listener.trust_source
            # two listeners on "any port" have one name: nobody is trusted unless both do
            if self._trusted.setdefault(name, networks) != networks:
                self._trusted[name] = ()
        self._ids = QueueIdSource()
        self._date_second = 0
        self._date = ""

    def resolve_recipients(self, address: str, mode: Mode | None = None) -> list[ResolvedRecipient]:
        """Rewrite a recipient, which may become several, and decide what happens in `mode`.

        See Rewriter and RecipientPolicy.
        """
        if self._bounces_to is not None and folded(address) == self._bounces_to:
            return [ResolvedRecipient(address, None, _BOUNCE_MAIL)]
        found = []
        for rewritten in self._rewriter.recipients(address):
            decision = self._policy.decide(rewritten, mode)
            final = decision.redirect_to or rewritten
            original = address if final != address else None
            found.append(ResolvedRecipient(final, original, decision))
        return found

    def header_of(
        self,
        content: ReceivedContent,
        *,
        limit_bytes: int = READ_HEADER_BYTES,
        may_be_bare: bool = False,  # its From: the sendmail command knows no domain
    ) -> Header:
        """Return the header of `content`; takes as long as that, see `has_long_header`."""
        head = content.head
        facts = read_header(head, self._wanted)
        is_whole = facts.end < len(head) or len(head) == content.size_bytes
        kept = head[: facts.end]
        if is_whole and facts.source_fields:
            kept = without_fields(kept, facts.source_fields)
        if may_be_bare:
            kept = self._rewriter.whole_from(kept)
        if facts.end > LONG_HEADER_BYTES and self._screen is not None:
            content.fingerprint = fingerprint(head, facts.end)
        return Header(facts, self._rewriter.headers(kept), is_whole, limit_bytes)

    def compose(
        self,
        *,
        sender: str,
        recipients: list[ResolvedRecipient],
        content: ReceivedContent,
        header: Header,
        origin: Origin,
        is_captured: bool = False,
    ) -> tuple[AcceptedMessage, Iterator[bytes]]:
        """Return the message and chunks of large content to store ahead.

        Raises TooManyHops, HeaderTooLong; what is only captured may have both.
        """
        if not is_captured:
            _check_header(header)
        facts, recipients = header.facts, _distinct(recipients)
        queue_id = self._ids.next_id(now_ms := clock_ms())
        message_id = facts.message_id or f"<{queue_id}@{self.hostname}>"
        added = self._added_fields(facts, queue_id, message_id, recipients, origin, now_ms)
        source, is_denied, is_archived = self._judge_source(
            origin.source, facts, is_whole=header.is_whole
        )
        fields = added + header.kept
        head = fields + content.head[facts.end :]
        # whoever reads the first chunk has the whole header
        first_chunks = 1 + (len(fields) + 1) // CHUNK_BYTES
        size_bytes = content.size_bytes + len(head) - len(content.head)
        if not content.is_spooled:
            self.room.take(size_bytes)
        archive, everybody = self._archive_to, recipients
        if archive is not None and origin.is_new and not (is_captured or is_archived):
            everybody = self._with_archive(archive, recipients, origin)
        deliveries = self._deliveries(sender, everybody, facts, origin)
        subject = self._content_wishes.shown(facts.subject, deliveries)
        message = AcceptedMessage(
            queue_id=queue_id,
            accepted_at_ms=now_ms,
            sender=sender,
            deliveries=deliveries,
            content=() if content.is_spooled else (head,),
            stored_chunks=(
                max(1, 1 + -(-size_bytes // CHUNK_BYTES) - first_chunks)
                if content.is_spooled
                else 0
            ),
            size_bytes=size_bytes,
            subject=subject,
            message_id=message_id,
            is_8bit=content.is_8bit or not fields.isascii(),
            has_long_line=content.has_long_line or has_long_line(fields),
            smtputf8=origin.smtputf8,
            mode=str(strictest(self._mode, origin.mode)),
            source=source,
            client_key=origin.client_key,
            drop_id=origin.drop_id,
            given_sender=origin.given_sender,
            has_denied_source=is_denied,
            dsn_ret=origin.dsn.ret,
            dsn_envid=origin.dsn.envid,
            link_value=link_value(facts, self._link_header) if self._link_header else None,
            is_bounce_mail=self._bounces_to is not None and _has_bounce_address(recipients),
            mail_class=self._class_of(source, sender, subject, deliveries[0].stream),
            refused_recipients=origin.refused_recipients,
            mail_key=self._mail_key(sender, recipients, content, origin),
            handed_over_ms=_not_after(now_ms, origin.handed_over_ms),
        )
        chunks = (
            content.chunks(head, first_chunks * CHUNK_BYTES) if content.is_spooled else iter(())
        )
        chunks = chunks if header.is_whole else without_late_fields(chunks)
        return self._screened(message, facts, content), chunks

    def _with_archive(
        self, archive: str, recipients: list[ResolvedRecipient], origin: Origin
    ) -> list[ResolvedRecipient]:
        """Return the recipients and the archive, which no header names: Postfix's always_bcc.

        Not where it is one of them, nor of mail that only relaygw reads.
        """
        if any(mailbox(recipient.address) == mailbox(archive) for recipient in recipients):
            return recipients
        if all(recipient.decision is _BOUNCE_MAIL for recipient in recipients):
            return recipients
        decision = self._policy.decide_archive(archive, origin.mode)
        return [*recipients, ResolvedRecipient(archive, None, decision, dsn_notify=NEVER)]

    def _screened(
        self, message: AcceptedMessage, facts: HeaderFacts, content: ReceivedContent
    ) -> AcceptedMessage:
        """Return the message, held for all that checks hold it for, if some of it is to be sent."""
        if self._screen is None:
            return message
        holds = self._screen.holds_of(message, facts, content)
        if not holds or not _is_to_be_sent(message):
            return message
        parts = message.deliveries
        for hold in holds:
            parts = tuple(chain.from_iterable(_held(part, hold) for part in parts))
        return replace(message, deliveries=parts)

    def _mail_key(
        self,
        sender: str,
        recipients: list[ResolvedRecipient],
        content: ReceivedContent,
        origin: Origin,
    ) -> str | None:
        """Return the key of an exact duplicate: client, envelope, fates, and content."""
        if not self.takes_once:
            return None
        source = origin.source
        client = source.client or self.hostname  # local users are of one host
        dsn = origin.dsn
        people = [
            (
                recipient.address,
                recipient.original or "",
                str(recipient.decision.fate),
                str(recipient.dsn_notify),
            )
            for recipient in recipients
        ]
        people.sort()
        who = (client, source.user, source.uid, str(origin.mode or self._mode), sender)
        envelope = repr((*who, dsn.notify, dsn.ret, dsn.envid, people)).encode("utf-8", "replace")
        whole = sha256((content.digest or content.take_digest()) + envelope)
        return whole.hexdigest()[:32]

    def _deliveries(
        self, sender: str, recipients: list[ResolvedRecipient], facts: HeaderFacts, origin: Origin
    ) -> tuple[NewDelivery, ...]:
        """Group the recipients by route; captured ones are filed under theirs, too."""
        groups: dict[str, tuple[Stream, list[NewRecipient]]] = {}
        for recipient in recipients:
            route = None
            if recipient.is_valid:
                route = self._router.route_for(
                    sender=sender,
                    recipient=recipient.address,
                    headers=facts.values,
                    listener=origin.source.listener,
                    user=origin.source.user,
                )
            name = route.name if route else CAPTURE_ROUTE
            stream = route.stream if route else Stream.TRANSACTIONAL
            fate = recipient.decision.fate
            if route is None and fate is Fate.DELIVER:
                fate = Fate.CAPTURE  # fails closed: nowhere to send it
            groups.setdefault(name, (stream, []))[1].append(
                NewRecipient(
                    address=recipient.address,
                    original=recipient.original,
                    state=_STATES[fate],
                    reason=recipient.decision.reason,
                    dsn_notify=recipient.dsn_notify or origin.dsn.notify,
                    # of what is redirected nobody else is named to a provider
                    dsn_orcpt=None if recipient.decision.redirect_to else recipient.dsn_orcpt,
                )
            )
        return tuple(
            [
                NewDelivery(route=name, stream=str(stream), recipients=tuple(members))
                for name, (stream, members) in groups.items()
            ]
        )

    def _added_fields(
        self,
        facts: HeaderFacts,
        queue_id: str,
        message_id: str,
        recipients: list[ResolvedRecipient],
        origin: Origin,
        now_ms: int,
    ) -> bytes:
        """Return Received (RFC 5321 section 4.4) and what RFC 6409 section 8 lets us add."""
        if now_ms // 1000 != self._date_second:
            self._date_second = now_ms // 1000
            self._date = formatdate(self._date_second, localtime=True)
        lines = self._received(queue_id, recipients, origin, self._date)
        if not facts.has_date:
            lines += f"Date: {self._date}\r\n"
        if not facts.message_id:
            lines += f"Message-ID: {message_id}\r\n"
        if not facts.has_header:
            lines += "\r\n"
        elif facts.is_mbox_line_first:
            lines += "X-Mailbox-Line: "  # an mbox separator is not a header field
        return lines.encode("utf-8")

    def _received(
        self, queue_id: str, recipients: list[ResolvedRecipient], origin: Origin, date: str
    ) -> str:
        source = origin.source
        if source.uid is not None or origin.protocol == LOCAL:
            # as Postfix writes of its pickup, and of its own mail
            by = "relaygw" if source.uid is None else f"relaygw, from userid {source.uid}"
            return f"Received: by {self.hostname} ({by})\r\n\tid {queue_id}; {date}\r\n"
        peer = "local"
        if source.client:
            peer = f"unknown [{'IPv6:' * (':' in source.client)}{source.client}]"
        given = recipients[0].original or recipients[0].address
        # not in UTF-8: our own trace must not make a message need 8BITMIME or SMTPUTF8
        is_told = len(recipients) == 1 and given.isascii()
        audience = f"\r\n\tfor <{given}>" if is_told else ""
        return (
            f"Received: from {source.helo or 'localhost'} ({peer})\r\n"
            f"\tby {self.hostname} (relaygw) with {origin.protocol} id {queue_id}{audience};\r\n"
            f"\t{date}\r\n"
        )

    def _judge_source(
        self, seen: Source, facts: HeaderFacts, *, is_whole: bool
    ) -> tuple[Source, bool, bool]:
        """Return the source to record, whether what the header told of it was not believed, and
        whether the relaygw that told has archived the mail.

        `is_whole` False: the header goes on behind what `facts` is of, a field may have been cut.
        """
        if seen.uid is not None and facts.script is not None:
            seen = replace(seen, script=facts.script)
        if facts.source is None:
            return seen, False, False
        networks = self._trusted.get(seen.listener or "", ()) if is_whole else ()
        told = None
        if networks and seen.client and is_trusted(parse_client(seen.client), networks):
            told = parse_source(facts.source)
        if told is None:
            return seen, True, False
        origin = told.source
        user = origin.user if origin.user is not None else seen.user
        source = replace(seen, host=origin.host, uid=origin.uid, user=user, script=origin.script)
        return source, False, told.is_archived


def _distinct(recipients: list[ResolvedRecipient]) -> list[ResolvedRecipient]:
    """Return the recipients, of one that is named several times the first; as Postfix's cleanup.

    Where several lead to one mailbox each stays on record: delivery sends once (policy.recipients).
    """
    if len(recipients) == 1:
        return recipients
    found: dict[tuple[str, str, Fate], ResolvedRecipient] = {}
    for recipient in recipients:
        given = mailbox(recipient.original or recipient.address)
        # lists may tell apart what is one mailbox: what may be sent is never lost to what may not
        found.setdefault((mailbox(recipient.address), given, recipient.decision.fate), recipient)
    return list(found.values())


def _has_bounce_address(recipients: list[ResolvedRecipient]) -> bool:
    return any(recipient.decision is _BOUNCE_MAIL for recipient in recipients)


def _check_header(header: Header) -> None:
    if header.facts.hops >= MAX_HOPS:
        raise TooManyHops(f"{header.facts.hops} Received fields, at most {MAX_HOPS - 1}")
    if header.is_too_long:
        raise HeaderTooLong(f"{header.limit_bytes} bytes")


def _no_class(*_: object) -> None:
    return None


def _not_after(now_ms: int, at_ms: int | None) -> int | None:
    return None if at_ms is None else min(at_ms, now_ms)


def _held(part: NewDelivery, hold: ScreenHold) -> Iterator[NewDelivery]:
    """Yield a delivery that is held, cut where it is not held for all of its recipients.

    Whose mailbox gets the mail by one that is not held is not held either: a release would send it
    twice.
    """
    held = replace(part, holds=(*part.holds, hold.cause))
    only, people = hold.only, part.recipients
    if only is None:
        yield held
        return
    others = (person for person in people if person.given.lower() not in only)
    sent = {mailbox(other.address) for other in others if other.state is RecipientState.PENDING}
    is_held = [
        person.given.lower() in only and mailbox(person.address) not in sent for person in people
    ]
    for kept, is_wanted in ((held, True), (part, False)):
        group = tuple(compress(people, (flag is is_wanted for flag in is_held)))
        if group:
            yield replace(kept, recipients=group)


def _is_to_be_sent(message: AcceptedMessage) -> bool:
    recipients = chain.from_iterable(part.recipients for part in message.deliveries)
    return any(recipient.state is RecipientState.PENDING for recipient in recipients)
