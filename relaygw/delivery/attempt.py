"""One attempt to send one delivery: transaction and verdicts; its `Attempt` tells all so far."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from relaygw.delivery.context import WorkerContext
from relaygw.delivery.sending_once import NO_KEY, KeyPlan, plan_at_once
from relaygw.errors import ContentDamaged
from relaygw.mail.envelope import ClaimedDelivery
from relaygw.mail.outcome import (
    NO_RELAY,
    AttemptDelays,
    AttemptReport,
    RecipientOutcome,
    Stage,
    Verdict,
)
from relaygw.policy.recipient_fields import FieldRule, FieldsFound
from relaygw.policy.recipients import NOBODY, Screen, Screened
from relaygw.settings.loops import looping_binds
from relaygw.store.store import Store
from relaygw.upstream.classifier import IN_DOUBT, Classifier
from relaygw.upstream.failure import UpstreamError
from relaygw.upstream.mark import marking_of
from relaygw.upstream.outgoing import (
    Ledger,
    OutgoingMail,
    RecipientReply,
    beginning,
    sift,
    source_field,
)
from relaygw.upstream.pool import Chaining, Pool
from relaygw.upstream.session import IsWanted, UpstreamSession

_MAX_STALE_SESSIONS = 3
_TAKEN = frozenset({Verdict.DELIVERED, Verdict.DOUBT})
TakeNext = Callable[[], ClaimedDelivery | None]


@dataclass(slots=True)
class Attempt:
    """One attempt as far as it is known: its owner keeps it, so nothing that ends it loses it."""

    claimed: ClaimedDelivery
    provider: str
    slot: int | None = None  # where a trace of it is kept while it goes on
    screened: Screened = NOBODY
    keys: KeyPlan = NO_KEY
    outcomes: list[RecipientOutcome] = field(default_factory=list)  # of the parts that ended
    taken_parts: int = 0  # of these, how many the provider took, or may have taken
    part: tuple[str, ...] = ()  # the addresses that are being sent to
    transaction: Ledger = field(default_factory=Ledger)  # of that part
    by_address: dict[str, list[int]] = field(default_factory=dict)
    relay: str = NO_RELAY
    session_uses: int = 1
    started_s: float = field(default_factory=time.monotonic)
    queue_s: float = 0.0
    connect_s: float = 0.0
    recorded: int = 0  # how many of `outcomes` the recorder has
    is_charged: bool = False  # by what it has
    is_doubted: bool = False
    due_at_ms: int = 0  # that the queue has: by another one an outcome is known to be there
    is_ended: bool = False  # the recorder has all of it

    @property
    def has_rest(self) -> bool:
        """True when there are recipients of whom nothing is known: nothing was sent to them."""
        return len(self.outcomes) < len(self.screened.sendable)

    @property
    def taken(self) -> int:
        """For how many recipients the provider took it, or may have taken it."""
        return sum(outcome.verdict in _TAKEN for outcome in self.outcomes)

    def report(self) -> AttemptReport:
        """Return the report as known now."""
        return AttemptReport(
            provider=self.provider,
            relay=self.relay,
            outcomes=tuple(self.outcomes),
            delays=AttemptDelays(
                queue_s=max(0.0, self.queue_s),
                connect_s=self.connect_s,
                transmit_s=time.monotonic() - self.started_s - self.connect_s,
            ),
            session_uses=self.session_uses,
        )

    def end_part(
        self, replies: Sequence[RecipientReply], classifier: Classifier, *, dsn: str | None = None
    ) -> None:
        """Note what came of the part that was being sent."""
        ended = len(self.outcomes)
        for address, answer in zip(self.part, replies, strict=True):
            at_rcpt = answer.at_rcpt
            if at_rcpt and classifier.meaning(Stage.RCPT, at_rcpt).verdict is Verdict.BOUNCE:
                answer = RecipientReply(stage=Stage.RCPT, reply=at_rcpt)  # whatever came later
            said = answer.said or answer.reply
            meaning = classifier.meaning(
                answer.stage, said, in_doubt=answer.in_doubt, recipients=len(self.part)
            )
            detail = answer.detail
            if meaning.verdict is Verdict.DOUBT:
                detail += f"; {self.keys.doubt}"
            for rcpt_no in self.by_address[address]:
                outcome = RecipientOutcome(
                    rcpt_no=rcpt_no,
                    meaning=meaning,
                    stage=answer.stage,
                    reply=answer.reply,
                    detail=detail,
                    dsn=dsn or answer.dsn,
                    is_passed_on=answer.is_passed_on,
                )
                self.outcomes.append(outcome)
        self.taken_parts += any(
            recipient_outcome.verdict in _TAKEN for recipient_outcome in self.outcomes[ended:]
        )
        self.part = ()

    def key_line(self) -> bytes:
        """Return the line with the idempotency key of the part that is being sent, if any."""
        if self.keys.header is None or self.keys.is_own:
            return b""
        (address,) = self.part
        return self.keys.line_for(self.claimed, self.by_address[address][0], address)

    def cut_short(self, classifier: Classifier) -> None:
        """Account for a part that something else than the provider has ended; never raises.

        It is in doubt as soon as its dot may have left; before that nothing was sent.
        """
        if not (self.part and self.transaction.is_dot_sent):
            return
        unknown = RecipientReply(stage=Stage.CONTENT, detail="no reply is known", in_doubt=True)
        try:
            self.end_part(self.transaction.replies or (unknown,) * len(self.part), classifier)
        except Exception as error:  # a defect in the meaning of a reply is no reason to send again
            what = f"{type(error).__name__} while handling the reply; {self.keys.doubt}"
            self.taken_parts += 1
            self.outcomes += [
                RecipientOutcome(
                    rcpt_no=rcpt_no, meaning=IN_DOUBT, stage=Stage.CONTENT, detail=what, dsn="4.4.2"
                )
                for address in self.part
                for rcpt_no in self.by_address[address]
            ]


class Upstream:
    """What it takes to send by one provider: connections, the meaning of replies, what it wants."""

    def __init__(self, context: WorkerContext, name: str, screen: Screen) -> None:
        self._context = context
        self.screen = screen
        self._provider = provider = context.settings.providers[name]
        self.max_recipients, self.key_header = provider.max_recipients, provider.key_header
        own = looping_binds(context.settings, name)
        self.pool = Pool(name, provider, ehlo_name=context.settings.hostname, own=own)
        self.classifier = Classifier(provider)
        self._fields = tuple(provider.headers.items())
        self._marking = marking_of(name, provider, context.marks, context.note_safely)
        self.chaining = Chaining(name, provider.chain_transactions, context.note)

    def recipients_at_once(self, keys: KeyPlan) -> int:
        """Return how many recipients share a transaction."""
        return 1 if keys.header is not None and not keys.is_own else self.max_recipients

    async def content_start(self, claimed: ClaimedDelivery) -> bytes:
        """Return content with its whole header, if that has an end. Raises ContentDamaged."""
        if claimed.content is not None:
            return claimed.content
        return await beginning(lambda: _stored_content(claimed, self._context.store))

    def mail(
        self,
        claimed: ClaimedDelivery,
        addresses: tuple[str, ...],
        field_rule: FieldRule | None,
        key_line: bytes = b"",
    ) -> OutgoingMail:
        """Return the mail for some recipients of a delivery. Raises ContentDamaged."""
        content, store, provider = claimed.content, self._context.store, self._provider
        settings = self._context.settings
        if content is not None:
            _check_size(claimed, len(content))
        wishes = {
            recipient.address: (recipient.dsn_notify, recipient.dsn_orcpt)
            for recipient in reversed(claimed.recipients)  # of one address the first counts
            if recipient.dsn_notify or recipient.dsn_orcpt
        }
        return OutgoingMail(
            sender=claimed.sender,
            recipients=addresses,
            content=content if content is not None else lambda: _stored_content(claimed, store),
            size_bytes=claimed.size_bytes,
            is_8bit=claimed.is_8bit,
            has_long_line=claimed.has_long_line,
            smtputf8=claimed.smtputf8,
            added=(
                source_field(
                    claimed.source,
                    settings.hostname,
                    is_archived=settings.archive_to is not None,
                )
                + key_line
                if provider.send_source
                else key_line
            ),
            fields=self._fields,
            field_rule=field_rule,
            mark=self._marking.mark(claimed.queue_id) if self._marking is not None else None,
            max_size_bytes=provider.max_message_size,
            dsn_ret=claimed.dsn_ret,
            dsn_envid=claimed.dsn_envid,
            dsn_notify=_in_order(addresses, wishes, 0) if wishes else (),
            dsn_orcpt=_in_order(addresses, wishes, 1) if wishes else (),
            may_report=self.screen.permits_reports(claimed),
        )

    def single_mail(self, claimed: ClaimedDelivery) -> OutgoingMail | None:
        """Return a delivery's mail if it is small and goes to all recipients in one transaction."""
        screened = self.screen.sort(claimed)
        if claimed.content is None or screened.blocked or screened.held or screened.suppressed:
            return None
        addresses = tuple(screened.by_address())
        if not 0 < len(addresses) <= self.max_recipients:
            return None
        line = b""
        if self.key_header is not None:
            plan = plan_at_once(self.key_header, claimed)
            if plan is None or len(addresses) > 1:
                return None
            line = plan.line_for(claimed, screened.sendable[0].rcpt_no, addresses[0])
        return self.mail(claimed, addresses, screened.field_rule, line)

    async def fields_found(self, claimed: ClaimedDelivery, field_rule: FieldRule) -> FieldsFound:
        """Return the header fields that stay behind, or keep a delivery from being sent."""
        mail = self.mail(claimed, (), field_rule)
        return (await sift(mail.content, mail.added, mail.fields, mail.field_rule)).found


class Line:
    """One place among a provider's connections, and what is sent on it without a pause.

    When chaining (decision 7) the session is kept back meanwhile. The next content still waits
    until the outcome of this one is durable: a line never has more than one message in doubt.
    """

    def __init__(self, upstream: Upstream, take_next: TakeNext) -> None:
        self.upstream = upstream
        self._take_next = take_next
        self._kept: UpstreamSession | None = None
        self._following: ClaimedDelivery | None = None

    async def send(
        self,
        attempt: Attempt,
        *,
        may_begin: Callable[[], bool],
        check_lease: Callable[[], bool],
        is_wanted: Callable[[Attempt], Awaitable[bool]],
        keep_part: Callable[[Attempt], Awaitable[bool]],
    ) -> None:
        """Send a delivery to the sendable recipients and note in `attempt` what the provider said.

        A mailbox that stands twice is sent to once. More recipients than a transaction takes are
        sent in several: `keep_part` makes the outcomes so far durable, and says whether the next
        may begin; `may_begin` is asked right before a transaction names anybody. Who was not
        reached has no outcome. `is_wanted` is asked once more before the dot of what may have been
        sent already.
        """
        claimed, upstream = attempt.claimed, self.upstream
        attempt.queue_s = time.time() - claimed.accepted_at_ms / 1000
        attempt.by_address = attempt.screened.by_address()
        addresses = list(attempt.by_address)
        at_once = upstream.recipients_at_once(attempt.keys)
        fence = partial(is_wanted, attempt) if claimed.may_be_taken else None
        for start in range(0, len(addresses), at_once):
            if start:
                if not await keep_part(attempt):
                    return
                attempt.transaction = Ledger()
            end = start + at_once
            attempt.part = tuple(addresses[start:end])
            rule = attempt.screened.field_rule
            mail = upstream.mail(claimed, attempt.part, rule, attempt.key_line())
            is_last = end >= len(addresses)
            try:
                replies = await self._transact(
                    attempt, mail, may_begin, check_lease, fence, may_chain=is_last
                )
            except UpstreamError as error:
                attempt.relay = error.relay
                failure = RecipientReply(
                    stage=error.stage, reply=error.reply, said=error.said, detail=error.detail
                )
                failures = (failure,) * len(attempt.part)
                attempt.end_part(failures, upstream.classifier, dsn=error.dsn)
                continue
            if attempt.transaction.is_fenced or not replies:
                return
            attempt.end_part(replies, upstream.classifier)

    async def _transact(
        self,
        attempt: Attempt,
        mail: OutgoingMail,
        may_begin: Callable[[], bool],
        check_lease: Callable[[], bool],
        is_wanted: IsWanted | None,
        *,
        may_chain: bool,
    ) -> tuple[RecipientReply, ...]:
        """Run one transaction; an idle connection that turns out dead or deaf is replaced."""
        for tries in range(_MAX_STALE_SESSIONS):
            if tries:
                attempt.transaction = Ledger()
            asked_s = time.monotonic()
            session = await self._acquire(mail, fresh=tries > 0)
            was_chained, in_step, is_taken = session.is_chained, False, False
            attempt.connect_s += time.monotonic() - asked_s
            attempt.relay = session.relay
            try:
                replies = await session.transact(
                    mail,
                    may_begin=may_begin,
                    check_lease=check_lease,
                    is_wanted=is_wanted,
                    next_mail=partial(self._next_mail, session, may_begin) if may_chain else None,
                    ledger=attempt.transaction,
                )
                in_step = not [reply for reply in replies if reply.stale_session]
                said = [reply.reply for reply in replies if reply.reply is not None]
                is_taken = bool([reply for reply in said if reply.is_positive])
            finally:
                self.upstream.chaining.ended(
                    session, was_chained=was_chained, in_step=in_step, is_taken=is_taken
                )
                self._release(session)
            if in_step:
                break
        attempt.session_uses = session.uses
        return replies

    async def _acquire(self, mail: OutgoingMail, *, fresh: bool) -> UpstreamSession:
        """Return a session for `mail`, `fresh` on a new connection; raises UpstreamError."""
        kept = self._kept
        if kept is not None and kept.expects(mail):
            self._kept = None
            return kept
        self.close()
        return await self.upstream.pool.acquire_session(fresh=fresh)

    def _release(self, session: UpstreamSession) -> None:
        """Give a session back to the pool, unless the next mail is begun on it."""
        if session.is_chained:
            self._kept = session
        else:
            self.upstream.pool.release_session(session)

    def _next_mail(
        self, session: UpstreamSession, may_begin: Callable[[], bool]
    ) -> OutgoingMail | None:
        """Choose the delivery that follows; return its mail if it may be begun already."""
        upstream = self.upstream
        if session.uses >= upstream.pool.max_messages_per_connection or not may_begin():
            return None
        if not upstream.chaining.may_follow(session):
            return None
        if self._following is None:
            self._following = self._take_next()
        return upstream.single_mail(self._following) if self._following is not None else None

    def take_following(self) -> ClaimedDelivery | None:
        """Return the delivery that was chosen, which has to be delivered or given back."""
        following, self._following = self._following, None
        return following

    def close(self) -> None:
        """Give up what was begun: nothing of its content was sent."""
        if self._kept is not None:
            self._kept.abort()
            self.upstream.chaining.given_up(self._kept)
            self.upstream.pool.release_session(self._kept)
            self._kept = None


def _in_order(
    addresses: tuple[str, ...], wishes: Mapping[str, tuple[str | None, str | None]], which: int
) -> tuple[str | None, ...]:
    """Return one of the wishes for each of the addresses."""
    return tuple(wishes.get(address, (None, None))[which] for address in addresses)


async def _stored_content(claimed: ClaimedDelivery, store: Store) -> AsyncIterator[bytes]:
    """Yield the chunks; raises before the last one is used up if they are not what was accepted."""
    size_bytes = 0
    for chunk_no in range(claimed.chunk_count):
        body = await asyncio.to_thread(store.intake.read_chunk, claimed.queue_id, chunk_no)
        if body is None:
            what = f"chunk {chunk_no} of {claimed.chunk_count} of its content"
            raise ContentDamaged(f"{what} is gone")
        size_bytes += len(body)
        yield body
    _check_size(claimed, size_bytes)


def _check_size(claimed: ClaimedDelivery, size_bytes: int) -> None:
    if size_bytes != claimed.size_bytes:
        what = f"its content has {size_bytes} bytes, {claimed.size_bytes} were accepted"
        raise ContentDamaged(f"{what}; it is not sent")
