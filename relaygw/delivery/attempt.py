"""One attempt to send one delivery: policy again, transaction, verdicts.

Never raises for what a provider does; what it returns says all. Lists and mode are checked
on every attempt, so that mail accepted under other settings is not sent against the
present ones.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from relaygw.delivery.line import Line
from relaygw.errors import ContentInvalid
from relaygw.mail.envelope import ClaimedDelivery, Recipient, Source
from relaygw.mail.outcome import (
    AttemptDelays,
    AttemptReport,
    RecipientOutcome,
    Stage,
    Verdict,
)
from relaygw.policy.modes import Modes
from relaygw.policy.recipients import RecipientPolicy
from relaygw.policy.releasing import ReleasePolicy
from relaygw.settings.model import Mode, Settings
from relaygw.store.protocol import Store
from relaygw.upstream.classify import Classifier
from relaygw.upstream.outgoing import OutgoingMail, RecipientReply
from relaygw.upstream.session import UpstreamError, UpstreamSession
from relaygw.upstream.terms import Terms

_MAX_STALE_SESSIONS = 3


@dataclass(frozen=True, slots=True)
class Screened:
    """The recipients of a delivery by what may happen to them now."""

    sendable: tuple[Recipient, ...]
    blocked: tuple[Recipient, ...]
    held: tuple[Recipient, ...]  # the mode or the allow list of now does not permit them


class Screen:
    """Looks once more at who may receive, by the settings of now (mode flips hold)."""

    def __init__(self, settings: Settings) -> None:
        self._policy = RecipientPolicy(settings.mode, settings.recipients)
        self._modes = Modes(settings)
        self._releases = ReleasePolicy(settings)

    def sort(self, claimed: ClaimedDelivery) -> Screened:
        """Return the pending recipients by what may happen to them."""
        obstacle = self.obstacle_of(claimed.source, Mode(claimed.mode), claimed.released)
        by_obstacle: dict[str | None, list[Recipient]] = {None: [], "blocked": [], "mode": []}
        for recipient in claimed.recipients:
            by_obstacle[obstacle(recipient.address)].append(recipient)
        return Screened(
            tuple(by_obstacle[None]), tuple(by_obstacle["blocked"]), tuple(by_obstacle["mode"])
        )

    def obstacle_of(
        self, source: Source, accepted_in: Mode, released: str | None
    ) -> Callable[[str], str | None]:
        """Return what says why an address may not be sent to; None: it may."""
        if released is not None:
            return partial(
                self._releases.obstacle,
                released=released,
                source=source,
                accepted_in=accepted_in,
            )
        mode = self._modes.of(source.listener, source.user, accepted_in=accepted_in)
        return partial(self._policy.obstacle, mode=mode)


async def attempt_delivery(
    claimed: ClaimedDelivery,
    recipients: Sequence[Recipient],
    *,
    provider: str,
    line: Line,
    max_recipients: int,
    store: Store,
    classifier: Classifier,
    check_lease: Callable[[], bool],
    may_go_on: Callable[[], bool],
    terms: Terms,
) -> AttemptReport:
    """Send a delivery to `recipients` and return what the provider said.

    An address that stands twice is sent once. More recipients than a transaction takes are
    sent in several, one after the other, as long as `may_go_on` says so.
    """
    started_s = time.monotonic()
    queue_s = time.time() - claimed.accepted_at_ms / 1000
    by_address: dict[str, list[int]] = {}
    for recipient in recipients:
        by_address.setdefault(recipient.address, []).append(recipient.rcpt_no)
    addresses = list(by_address)
    outcomes: list[RecipientOutcome] = []
    relay, uses, connect_s = "none", 1, 0.0
    for start in range(0, len(addresses), max_recipients):
        part = tuple(addresses[start : start + max_recipients])
        if start and not may_go_on():
            left = RecipientReply(stage=Stage.LOCAL, detail="stopping, nothing sent")
            outcomes += _outcomes(part, (left,) * len(part), by_address, classifier)
            continue
        mail = _outgoing(claimed, part, store, terms)
        is_last = start + max_recipients >= len(addresses)
        try:
            session, replies, waited_s = await _transact(line, mail, check_lease, may_chain=is_last)
            relay, uses, connect_s = session.relay, session.uses, connect_s + waited_s
        except UpstreamError as error:
            relay = error.relay
            failure = RecipientReply(stage=error.stage, reply=error.reply, detail=error.detail)
            replies = (failure,) * len(part)
            outcomes += _outcomes(part, replies, by_address, classifier, dsn=error.dsn)
            continue
        outcomes += _outcomes(part, replies, by_address, classifier)
    return AttemptReport(
        provider=provider,
        relay=relay,
        outcomes=tuple(outcomes),
        delays=AttemptDelays(
            queue_s=max(0.0, queue_s),
            connect_s=connect_s,
            transmit_s=time.monotonic() - started_s - connect_s,
        ),
        session_uses=uses,
    )


async def _transact(
    line: Line, mail: OutgoingMail, check_lease: Callable[[], bool], *, may_chain: bool
) -> tuple[UpstreamSession, tuple[RecipientReply, ...], float]:
    """Run one transaction; an idle connection that turns out dead or deaf is replaced at once."""
    for tries in range(_MAX_STALE_SESSIONS):
        asked_s = time.monotonic()
        session = await line.acquire(mail, fresh=tries > 0)
        waited_s = time.monotonic() - asked_s
        try:
            replies = await session.transact(
                mail, check_lease=check_lease, next_mail=line.next_mail if may_chain else None
            )
        finally:
            line.release(session)
        if not any(reply.stale_session for reply in replies):
            break
    return session, replies, waited_s


def _outcomes(
    addresses: tuple[str, ...],
    replies: tuple[RecipientReply, ...],
    by_address: dict[str, list[int]],
    classifier: Classifier,
    *,
    dsn: str | None = None,
) -> list[RecipientOutcome]:
    found = []
    for address, answer in zip(addresses, replies, strict=True):
        meaning = classifier.meaning(answer.stage, answer.reply, in_doubt=answer.in_doubt)
        found += [
            RecipientOutcome(
                rcpt_no=rcpt_no,
                meaning=meaning,
                stage=answer.stage,
                reply=answer.reply,
                detail=_explain(answer, meaning.verdict),
                dsn=dsn or answer.dsn,
            )
            for rcpt_no in by_address[address]
        ]
    return found


def _explain(answer: RecipientReply, verdict: Verdict) -> str:
    if verdict is Verdict.DOUBT:
        return f"{answer.detail}; the message may be sent more than once"
    return answer.detail


def single_mail(
    claimed: ClaimedDelivery,
    screened: Screened,
    *,
    max_recipients: int,
    store: Store,
    terms: Terms,
) -> OutgoingMail | None:
    """Return a delivery's mail if it is small and goes to all recipients in one transaction."""
    if claimed.content is None or screened.blocked or screened.held:
        return None
    addresses = tuple(dict.fromkeys(recipient.address for recipient in screened.sendable))
    if not 0 < len(addresses) <= max_recipients:
        return None
    return _outgoing(claimed, addresses, store, terms)


def _outgoing(
    claimed: ClaimedDelivery, addresses: tuple[str, ...], store: Store, terms: Terms
) -> OutgoingMail:
    notify = {one.address: one.dsn_notify for one in claimed.recipients if one.dsn_notify}
    return OutgoingMail(
        sender=claimed.sender,
        recipients=addresses,
        content=claimed.content
        if claimed.content is not None
        else lambda: _stored_content(claimed, store),
        size_bytes=claimed.size_bytes,
        is_8bit=claimed.is_8bit,
        has_long_line=claimed.has_long_line,
        smtputf8=claimed.smtputf8,
        added=terms.source_of(claimed.source),
        fields=terms.fields,
        max_size_bytes=terms.max_size_bytes,
        dsn_ret=claimed.dsn_ret,
        dsn_envid=claimed.dsn_envid,
        dsn_notify=tuple(notify.get(address) for address in addresses) if notify else (),
    )


async def _stored_content(claimed: ClaimedDelivery, store: Store) -> AsyncIterator[bytes]:
    for chunk_no in range(claimed.chunk_count):
        body = await asyncio.to_thread(store.read_chunk, claimed.queue_id, chunk_no)
        if body is None:
            raise ContentInvalid(f"{claimed.queue_id}: chunk {chunk_no} of its content is gone")
        yield body
