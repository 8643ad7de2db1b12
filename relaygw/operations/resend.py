"""Sending again: a new message with the content of one that was delivered, bounced or expired.

It goes through what any accepted message goes through, by the configuration of now, and again at
each attempt. The line of the audit trail names both messages and is written with the new one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Protocol

from relaygw.errors import AlreadyAccepted, StoreUnavailable
from relaygw.mail.address import canonical, distinct, mailbox
from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.state import CaptureCode, RecipientState, capture_code
from relaygw.mail.suppression import Action, Listed
from relaygw.mail.words import fields
from relaygw.observe.history import Series
from relaygw.observe.labels import MAILDROP
from relaygw.operations.queue_actions import LeftAlone, batches
from relaygw.store.audit import AuditEntry
from relaygw.store.queue_entry import QueueEntry, RecipientEntry
from relaygw.store.store import Store, add_content, read_content

RESEND = "queue.resend"
"""The action in the audit trail; its target is the old queue id and the new one."""
KEEP_CONTENT = (
    "queue.keep_content: 7d in relaygw.yaml keeps it for seven days for mail that ends from then "
    "on, and needs disk space for seven days of mail"
)
CONTENT_GONE = f"its content is no longer kept; {KEEP_CONTENT}"
_CHANGED = "it has just been sent again, or its content has been deleted; check it and try again"
_R = RecipientState
_FAILED = frozenset({_R.BOUNCED, _R.EXPIRED})
SENT_AGAIN = "sent again"
_FATES = {_R.PENDING: SENT_AGAIN, _R.CAPTURED: "captured", _R.BLOCKED: "dropped"}
SUPPRESSED = "suppressed"
NOT_SENT = {SENT_AGAIN: "", **dict.fromkeys(("captured", "dropped", SUPPRESSED), ", not sent")}
"""What is said behind a result."""


class Composer(Protocol):
    """Makes a message to be stored of the content of another: inbound.local_mail.Resender."""

    has_space: Callable[[], bool]

    def composed(
        self, entry: QueueEntry, content: Iterator[bytes], recipients: Sequence[str], drop_id: str
    ) -> AbstractContextManager[tuple[AcceptedMessage, Iterator[bytes]]]:
        """Yield it, and for large content the chunks to store ahead of it."""


@dataclass(frozen=True, slots=True)
class ResendRequest:
    """What somebody wants to be sent again.

    `to` None: to whom it bounced or expired; to whom it was delivered if there is no such one, or
    `with_delivered`. `is_forced`: also what a provider may have taken already.
    """

    to: str | None = None
    with_delivered: bool = False
    is_forced: bool = False


@dataclass(frozen=True, slots=True)
class ResentTo:
    """One recipient of the new message, and what becomes of it there."""

    address: str
    was: str | None  # its outcome in the old message; None: it had none
    state: RecipientState  # PENDING: it is sent to; CAPTURED and BLOCKED: it is not
    route: str
    reason: str | None  # why it is not
    listed: Listed | None = None  # it is suppressed

    @property
    def is_suppressed(self) -> bool:
        """True when it is not sent to for that."""
        return self.listed is not None and self.listed.action is Action.BLOCK

    @property
    def result(self) -> str:
        """What becomes of it in a word or two."""
        return SUPPRESSED if self.is_suppressed else _FATES[self.state]

    @property
    def words(self) -> str:
        """What becomes of it, and why or how."""
        if self.listed is not None:
            what = "not sent" if self.is_suppressed else f"by route {self.route} anyway"
            return f"{what}: {self.listed.sentence}"
        if self.state is _R.PENDING:
            return f"by route {self.route}"
        return f"{self.result}, not sent" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resent:
    """A message that is sent again."""

    entry: QueueEntry
    recipients: tuple[ResentTo, ...]
    addresses: tuple[str, ...]  # before rewriting
    number: int  # 1: it is sent again for the first time
    new_id: str = ""  # "": it is not yet

    @property
    def queue_id(self) -> str:
        """The id of the old message."""
        return self.entry.queue_id

    @property
    def result(self) -> str:
        """What becomes of it in a word or two: it is sent again if it is to anybody."""
        results = {recipient.result for recipient in self.recipients}
        return next(word for word in (*_FATES.values(), SUPPRESSED) if word in results)

    @property
    def audited(self) -> str:
        """Who gets it, for the audit trail."""
        return ", ".join(
            recipient.address
            if recipient.result == SENT_AGAIN
            else f"{recipient.address} ({recipient.result})"
            for recipient in self.recipients
        )

    @property
    def delivered_left(self) -> int:
        """How many it was delivered to, where only those get it again to whom it was not."""
        if not any(recipient.was in _FAILED for recipient in self.recipients):
            return 0
        again = set(map(canonical, self.addresses))
        delivered = (
            recipient.address
            for recipient in self.entry.recipients
            if recipient.state is _R.DELIVERED
        )
        return len(set(map(canonical, delivered)) - again)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResendResult:
    """What is sent again, or would be, and what is left alone."""

    messages: tuple[Resent, ...] = ()
    left: tuple[LeftAlone, ...] = ()

    @property
    def mark(self) -> str:
        """A short name for exactly this: who confirmed one confirmed no other."""
        shown = [
            (message.queue_id, message.number, message.recipients) for message in self.messages
        ]
        return hashlib.sha256(repr(shown).encode()).hexdigest()[:16]


def may_be_resent(entry: QueueEntry) -> list[RecipientEntry]:
    """Return the recipients of a message that ended in a way after which it is sent again."""
    return [
        recipient
        for recipient in entry.recipients
        if recipient.state is _R.DELIVERED or _has_failed(recipient)
    ]


def _has_failed(recipient: RecipientEntry) -> bool:
    """True if it did not get the mail; who was suppressed may not be any more."""
    is_suppressed = (
        recipient.state is _R.BLOCKED and capture_code(recipient.reply) is CaptureCode.SUPPRESSED
    )
    return recipient.state in _FAILED or is_suppressed


def resent_object(copy: Resent) -> dict[str, Any]:
    """Return a message that is sent again; `--json` and the API have the same names of fields."""
    told = ("address", "was", "result", "route", "reason")
    recipients = [fields(to, *told) for to in copy.recipients]
    return {
        **{"queue_id": copy.queue_id, "resent_as": copy.new_id or None, "result": copy.result},
        "recipients": recipients,
    }


def plan_resend(
    store: Store, composer: Composer, ids: Sequence[str], request: ResendRequest
) -> ResendResult:
    """Return the mail that would be sent again, and to whom; changes nothing."""
    found: list[Resent | LeftAlone] = []
    for batch in batches(ids):
        found += (_plan(store, composer, entry, request) for entry in store.queue.entries(batch))
    return ResendResult(
        messages=tuple(copy for copy in found if isinstance(copy, Resent)),
        left=tuple(obstacle for obstacle in found if isinstance(obstacle, LeftAlone)),
    )


def send_again(
    store: Store, composer: Composer, planned: ResendResult, *, actor: str, now_ms: int, detail: str
) -> ResendResult:
    """Store the messages of a plan, each in a transaction with its line of the audit trail.

    What was sent again since it was planned is left alone. Raises StoreUnavailable; those before
    it are done.
    """
    done, left = [], list(planned.left)
    for message in planned.messages:
        if not composer.has_space():
            raise StoreUnavailable(
                "the volume that holds the queue is nearly full; free some space"
            )
        try:
            done.append(_store(store, composer, message, actor=actor, now_ms=now_ms, detail=detail))
        except (AlreadyAccepted, _ContentGone):
            left.append(LeftAlone(message.queue_id, _CHANGED, is_temporary=True))
    return ResendResult(messages=tuple(done), left=tuple(left))


class _ContentGone(Exception):
    """Not all of the content was there any more."""


def _store(
    store: Store, composer: Composer, copy: Resent, *, actor: str, now_ms: int, detail: str
) -> Resent:
    drop_id = _drop_id(copy.queue_id, copy.number)
    with composer.composed(
        copy.entry, _whole(store, copy.entry), copy.addresses, drop_id
    ) as composed:
        message, chunks = composed
        if message.stored_chunks:
            add_content(store, message.queue_id, chunks)
    resent = replace(copy, recipients=_fates(message, copy.entry, store), new_id=message.queue_id)
    entry = AuditEntry(
        at_ms=now_ms,
        actor=actor,
        action=RESEND,
        target=f"{copy.queue_id} {message.queue_id}",
        affected=1,
        detail="; ".join(filter(None, [f"to {resent.audited}", detail])),
    )
    store.intake.accept_batch([message], entry=entry)
    with suppress(StoreUnavailable):  # it is sent: a count that is lost is no failure
        label = message.source.listener or MAILDROP
        # nothing else: alerts look at what programs hand over
        store.watch.add_history(now_ms, {(Series.MESSAGES.value, label): 1})
    return resent


def _whole(store: Store, entry: QueueEntry) -> Iterator[bytes]:
    size_bytes = 0
    for body in read_content(store, entry):
        size_bytes += len(body)
        yield body
    if size_bytes != entry.size_bytes:
        raise _ContentGone


def _drop_id(queue_id: str, number: int) -> str:
    """Return a key that is unique in the queue: of two who send it again at once, one does."""
    return f"resend-{queue_id}-{number}"


# --- who gets it ----------------------------------------------------------------------------


def _plan(
    store: Store, composer: Composer, entry: QueueEntry, request: ResendRequest
) -> Resent | LeftAlone:
    ended = may_be_resent(entry)
    chosen = _chosen(ended, request)
    addresses = tuple(distinct(chosen))
    number = next(
        n for n in count(1) if not store.intake.taken_drops([_drop_id(entry.queue_id, n)])
    )
    why = _objection(entry, ended, addresses, request)
    if not why and number > 1:
        why = _still_on_its_way(store, entry, addresses)
    if why:
        return LeftAlone(entry.queue_id, why)
    head = store.intake.read_chunk(entry.queue_id, 0) or b""
    with composer.composed(entry, iter([head]), addresses, "") as (message, _):
        recipients = _fates(message, entry, store)
    if all(recipient.is_suppressed for recipient in recipients):
        who = "; ".join(
            f"{recipient.address} is {recipient.listed.sentence}"
            for recipient in recipients
            if recipient.listed
        )
        return LeftAlone(entry.queue_id, who)
    return Resent(entry=entry, recipients=recipients, addresses=addresses, number=number)


def _chosen(ended: Sequence[RecipientEntry], request: ResendRequest) -> list[str]:
    if request.to is not None:
        return [request.to]
    failed = [recipient.address for recipient in ended if _has_failed(recipient)]
    if failed and not request.with_delivered:
        return failed
    return [recipient.address for recipient in ended]


def _objection(
    entry: QueueEntry,
    ended: Sequence[RecipientEntry],
    addresses: Collection[str],
    request: ResendRequest,
) -> str:
    """Return why a message is left alone, "" for nothing."""
    if not ended:
        return _not_ended(entry)
    if not entry.chunk_count:
        return CONTENT_GONE
    wanted = set(map(canonical, addresses))
    for recipient in entry.recipients:
        if recipient.state is _R.PENDING and canonical(recipient.address) in wanted:
            return (
                f"{recipient.address} is already going to receive it; relaygw queue explain "
                f"{entry.queue_id}"
            )
    parts = {part.delivery_no: part for part in entry.deliveries if part.is_in_doubt}
    for recipient in () if request.is_forced else ended:
        is_wanted = recipient.state in _FAILED and canonical(recipient.address) in wanted
        if is_wanted and recipient.delivery_no in parts:
            provider = parts[recipient.delivery_no].provider
            return f"{provider} may have sent it already; with --force it may be sent twice"
    return ""


def _not_ended(entry: QueueEntry) -> str:
    states = {recipient.state for recipient in entry.recipients}
    if states == {_R.CAPTURED}:
        return f"it is captured; relaygw sandbox release {entry.queue_id} sends it"
    shown = " and ".join(sorted({part.state for part in entry.deliveries} | states))
    return f"it is {shown}; resend is for mail that was delivered, bounced or expired"


def _still_on_its_way(store: Store, entry: QueueEntry, addresses: Iterable[str]) -> str:
    """Return who is already going to receive it because it was sent again before, "" for nobody."""
    wanted = set(map(canonical, addresses))
    actions = store.queue.record_of(entry.queue_id).actions
    pairs = [action.target.split() for action in actions if action.action == RESEND]
    for later in store.queue.entries([new for old, new in pairs if old == entry.queue_id]):
        for recipient in later.recipients:
            if recipient.state is _R.PENDING and canonical(recipient.address) in wanted:
                return (
                    f"{recipient.address} is already going to receive it: it was sent again as "
                    f"{later.queue_id}; relaygw queue explain {later.queue_id}"
                )
    return ""


def _fates(message: AcceptedMessage, entry: QueueEntry, store: Store) -> tuple[ResentTo, ...]:
    listed: dict[str, Listed] = {}
    for part in message.deliveries:
        pending = [
            recipient.address for recipient in part.recipients if recipient.state is _R.PENDING
        ]
        look = store.suppressions.listed_for
        listed |= look(pending, sender=message.sender, stream=part.stream)
    # by their mailboxes: some may have been captured as no addresses
    was = {mailbox(recipient.address): recipient.state.value for recipient in entry.recipients}
    return tuple(
        ResentTo(
            address=recipient.address,
            was=was.get(mailbox(recipient.original or recipient.address)),
            state=recipient.state,
            route=part.route,
            reason=recipient.reason,
            listed=listed.get(recipient.address) if recipient.state is _R.PENDING else None,
        )
        for part in message.deliveries
        for recipient in part.recipients
    )
