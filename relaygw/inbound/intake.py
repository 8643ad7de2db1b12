"""From an envelope and content to a message ready to be stored: policy applied, source judged.

Every way in (SMTP, the maildrop, an import) goes through here, so that none has rules of its own.
The word of another relaygw on where a message came from (X-Relaygw-Source) is taken from clients
in `trust_source` of their listener only, and taken out of the content whoever sent it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from email.utils import formatdate
from pathlib import Path

from relaygw.errors import RelaygwError
from relaygw.inbound.content import CHUNK_BYTES, ReceivedContent
from relaygw.mail.clock import clock_ms
from relaygw.mail.content import HeaderFacts, has_long_line, read_header, without_fields
from relaygw.mail.envelope import (
    NO_REQUEST,
    AcceptedMessage,
    DsnRequest,
    NewDelivery,
    NewRecipient,
    QueueIdSource,
    Source,
)
from relaygw.mail.source_header import parse_source, rename_late
from relaygw.mail.state import RecipientState
from relaygw.policy.admission import is_trusted, parse_client
from relaygw.policy.recipients import Decision, Fate, Modes, RecipientPolicy, strictest
from relaygw.policy.rewriter import Rewriter
from relaygw.policy.router import CAPTURE_ROUTE, Router
from relaygw.settings.listener import Listener
from relaygw.settings.mode import Mode
from relaygw.settings.model import Settings
from relaygw.settings.routes import Route, Stream
from relaygw.settings.units import Network

MAX_HOPS = 50
_SPACE_CHECK_S = 1.0
_STATES = {
    Fate.DELIVER: RecipientState.PENDING,
    Fate.CAPTURE: RecipientState.CAPTURED,
    Fate.DROP: RecipientState.BLOCKED,
    Fate.REJECT: RecipientState.BLOCKED,  # where the sender cannot be told any more
}


class TooManyHops(RelaygwError):
    """The message has gone round in a loop."""


@dataclass(frozen=True, slots=True)
class ResolvedRecipient:
    """A recipient after rewriting and policy."""

    address: str
    original: str | None
    decision: Decision
    is_valid: bool = True  # False: the address cannot be read, so no route is looked up


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


class Intake:
    """The settings of acceptance, compiled once per process."""

    def __init__(self, settings: Settings, *, state_dir: Path) -> None:
        self.hostname = settings.hostname
        self.state_dir = state_dir
        self.modes = Modes(settings)
        self._mode = settings.mode
        self._min_free = settings.queue.min_free
        self._router = Router(settings.routes)
        self._policy = RecipientPolicy(settings.mode, settings.recipients)
        self._rewriter = Rewriter(settings.rewrite, settings.hostname)
        self._sources = TrustedSources(settings.listeners)
        self._ids = QueueIdSource()
        self._date_second = 0
        self._date = ""
        self._space_checked_at_s = float("-inf")
        self._has_space = True

    def has_space(self) -> bool:
        """False when the state volume is nearly full (looked at once a second)."""
        now_s = time.monotonic()
        if now_s - self._space_checked_at_s >= _SPACE_CHECK_S:
            self._space_checked_at_s = now_s
            volume = os.statvfs(self.state_dir)
            self._has_space = volume.f_bavail >= self._min_free * volume.f_blocks
        return self._has_space

    def resolve_sender(self, address: str) -> str:
        """Return the envelope sender to use."""
        return self._rewriter.sender(address)

    def resolve_recipient(self, address: str, mode: Mode | None = None) -> ResolvedRecipient:
        """Rewrite a recipient and decide what happens to it in `mode`, see RecipientPolicy."""
        rewritten = self._rewriter.recipient(address)
        decision = self._policy.decide(rewritten, mode)
        final = decision.redirect_to or rewritten
        return ResolvedRecipient(final, address if final != address else None, decision)

    def compose(
        self,
        *,
        sender: str,
        recipients: list[ResolvedRecipient],
        content: ReceivedContent,
        origin: Origin,
        may_loop: bool = False,
    ) -> tuple[AcceptedMessage, Iterator[bytes]]:
        """Return the message, and for large content the chunks to store ahead of it.

        Raises TooManyHops unless it `may_loop`, as what is only captured may.
        """
        facts = read_header(content.head, self._router.header_names)
        if facts.hops >= MAX_HOPS and not may_loop:
            raise TooManyHops(f"{facts.hops} Received fields, at most {MAX_HOPS - 1}")
        now_ms = clock_ms()
        queue_id = self._ids.next_id(now_ms)
        message_id = facts.message_id or f"<{queue_id}@{self.hostname}>"
        added = self._added_fields(facts, queue_id, message_id, recipients, origin, now_ms)
        is_whole = facts.end < len(content.head) or not content.is_spooled
        source, is_denied = self._sources.judge(origin.source, facts, is_whole=is_whole)
        header = added + self._kept_fields(content.head[: facts.end], facts, is_whole=is_whole)
        head = header + content.head[facts.end :]
        size_bytes = content.size_bytes + len(head) - len(content.head)
        message = AcceptedMessage(
            queue_id=queue_id,
            accepted_at_ms=now_ms,
            sender=sender,
            deliveries=self._deliveries(sender, recipients, facts, origin),
            content=() if content.is_spooled else (head,),
            stored_chunks=-(-size_bytes // CHUNK_BYTES) if content.is_spooled else 0,
            size_bytes=size_bytes,
            subject=facts.subject,
            message_id=message_id,
            is_8bit=content.is_8bit or not header.isascii(),
            has_long_line=content.has_long_line or has_long_line(header),
            smtputf8=origin.smtputf8,
            mode=strictest(self._mode, origin.mode).value,
            source=source,
            client_key=origin.client_key,
            drop_id=origin.drop_id,
            given_sender=origin.given_sender,
            has_denied_source=is_denied,
            dsn_ret=origin.dsn.ret,
            dsn_envid=origin.dsn.envid,
        )
        chunks = content.chunks(head) if content.is_spooled else iter(())
        return message, chunks if is_whole else without_late_fields(chunks)

    def _kept_fields(self, block: bytes, facts: HeaderFacts, *, is_whole: bool) -> bytes:
        """Return the header as it came, rewritten, without what it told of its source."""
        if facts.source_fields and is_whole:
            block = without_fields(block, facts.source_fields)
        return self._rewriter.headers(block)

    def _deliveries(
        self,
        sender: str,
        recipients: list[ResolvedRecipient],
        facts: HeaderFacts,
        origin: Origin,
    ) -> tuple[NewDelivery, ...]:
        """Group the recipients by route; captured ones are filed under theirs, too."""
        groups: dict[str, tuple[Stream, list[NewRecipient]]] = {}
        for recipient in recipients:
            route = self._route_for(sender, recipient, facts, origin.source)
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
                    dsn_notify=origin.dsn.notify,
                )
            )
        return tuple(
            NewDelivery(route=name, stream=stream.value, recipients=tuple(members))
            for name, (stream, members) in groups.items()
        )

    def _route_for(
        self, sender: str, recipient: ResolvedRecipient, facts: HeaderFacts, seen: Source
    ) -> Route | None:
        if not recipient.is_valid:
            return None
        return self._router.route_for(
            sender=sender,
            recipient=recipient.address,
            headers=facts.values,
            listener=seen.listener,
            user=seen.user,
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
        date = self._formatted_date(now_ms // 1000)
        lines = self._received(queue_id, recipients, origin, date)
        if not facts.has_date:
            lines += f"Date: {date}\r\n"
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
        if source.uid is not None:  # as Postfix writes of its pickup
            return (
                f"Received: by {self.hostname} (relaygw, from userid {source.uid})\r\n"
                f"\tid {queue_id}; {date}\r\n"
            )
        peer = f"unknown [{_literal(source.client)}]" if source.client else "local"
        given = recipients[0].original or recipients[0].address
        # not in UTF-8: our own trace must not make a message need 8BITMIME or SMTPUTF8
        is_told = len(recipients) == 1 and given.isascii()
        audience = f"\r\n\tfor <{given}>" if is_told else ""
        return (
            f"Received: from {source.helo or 'localhost'} ({peer})\r\n"
            f"\tby {self.hostname} (relaygw) with {origin.protocol} id {queue_id}{audience};\r\n"
            f"\t{date}\r\n"
        )

    def _formatted_date(self, second: int) -> str:
        if second != self._date_second:
            self._date_second = second
            self._date = formatdate(second, localtime=True)
        return self._date


def _literal(client: str) -> str:
    return f"IPv6:{client}" if ":" in client else client


class TrustedSources:
    """The networks of each listener whose word on the source of mail is taken."""

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self._networks: dict[str, tuple[Network, ...]] = {}
        for listener in listeners:
            name, networks = str(listener.bind), listener.trust_source
            # two listeners on "any port" have one name: nobody is trusted unless both do
            if self._networks.setdefault(name, networks) != networks:
                self._networks[name] = ()

    def judge(self, seen: Source, facts: HeaderFacts, *, is_whole: bool) -> tuple[Source, bool]:
        """Return the source to record, and whether what the header told of it was not believed.

        The client, its HELO and the listener stay as seen. `is_whole` False: the header goes on
        behind what `facts` is of, so that a field may have been cut.
        """
        if seen.uid is not None and facts.script is not None:
            seen = replace(seen, script=facts.script)
        if facts.source is None:
            return seen, False
        told = parse_source(facts.source) if is_whole and self._is_trusted(seen) else None
        if told is None:
            return seen, True
        return (
            replace(
                seen,
                host=told.host,
                uid=told.uid,
                user=told.user if told.user is not None else seen.user,
                script=told.script,
            ),
            False,
        )

    def _is_trusted(self, seen: Source) -> bool:
        networks = self._networks.get(seen.listener or "", ())
        return bool(networks and seen.client) and is_trusted(
            parse_client(seen.client or ""), networks
        )


def without_late_fields(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield `chunks` with X-Relaygw-Source renamed up to the end of the header.

    For a header that is longer than a chunk: the sizes stay, since they are counted already.
    """
    held = next(chunks, b"")
    for chunk in chunks:
        joined = held + chunk  # a field may begin in one and end in the other
        end = joined.find(b"\r\n\r\n")
        block = joined if end < 0 else joined[: end + 2]
        joined = rename_late(block) + joined[len(block) :]
        yield joined[: len(held)]
        held = joined[len(held) :]
        if end >= 0:
            break
    yield held
    yield from chunks
