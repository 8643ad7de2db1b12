"""Which messages an operator means.

Open ones are found by their index, so that a page of a long queue costs a look at a page; finished
ones, nearly all, are never looked at. Rare results, captured mail and what an attempt put off have
indexes of their own, delivered mail is walked through by its ids, which grow with time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Select, TextClause, and_, exists, func, or_, select, union
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.attempt_state import AttemptState
from relaygw.mail.mail_class import LOCAL_HOST
from relaygw.mail.queue_id import CLOCKS_MS, first_id_at
from relaygw.mail.state import OPEN, RARE_RESULTS, DeliveryState, RecipientState
from relaygw.mail.verdict import Kind
from relaygw.store.batches import rows_in
from relaygw.store.database import Transaction
from relaygw.store.queue_tables import (
    HAS_PUT_OFF,
    HAS_RARE_OUTCOME,
    IS_OPEN,
    attempt,
    delivery,
    message,
    recipient,
)
from relaygw.store.schema import has_text
from relaygw.store.side_tables import provider_event, verdict

MAX_TEXT_CHARACTERS = 1000  # of a text that is looked for: far below what SQLite takes as a pattern

_CAPTURED = frozenset({RecipientState.CAPTURED})
Condition = ColumnElement[bool] | TextClause


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which messages: every condition set must hold; texts match anywhere, without case.

    With `results` and `verdicts` the conditions on a recipient and the provider hold for one of
    those who came to one of them, and `since_ms` and `until_ms` are about that time; with
    `attempts` all these are about one of those, which may be repeated ones; else times are about
    acceptance.
    """

    queue_ids: tuple[str, ...] = ()
    sender: str | None = None
    sender_domain: str | None = None
    recipient: str | None = None
    domain: str | None = None
    subject: str | None = None
    states: frozenset[DeliveryState] = OPEN
    provider: str | None = None
    route: str | None = None
    stream: str | None = None
    client: str | None = None
    host: str | None = None
    uid: int | None = None
    script: str | None = None
    results: frozenset[RecipientState] = frozenset()
    verdicts: frozenset[Kind] = frozenset()  # last words that were reported since
    attempts: frozenset[AttemptState] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None
    accepted_before_ms: int | None = None
    reason: str | None = None
    reply: str | None = None

    @property
    def is_of_acceptance(self) -> bool:
        """True where the times are those of acceptance."""
        return not (self.results or self.verdicts or self.attempts)

    @property
    def is_of_few(self) -> bool:
        """True where an index of what is rare lists what is looked for."""
        is_rare = self.results <= RARE_RESULTS | _CAPTURED and Kind.DELIVERED not in self.verdicts
        return bool(self.attempts or ((self.results or self.verdicts) and is_rare))


def delivery_conditions(selection: Selection) -> Iterator[Condition]:
    """Yield what holds of the deliveries."""
    if selection.queue_ids:
        yield delivery.c.queue_id.in_(selection.queue_ids)
    yield from _state_conditions(selection)
    yield from _part_conditions(selection)


def _state_conditions(selection: Selection) -> Iterator[Condition]:
    if selection.states != frozenset(DeliveryState):
        yield delivery.c.state.in_([state.value for state in selection.states])
    if selection.states <= OPEN:
        yield IS_OPEN


def _part_conditions(selection: Selection) -> Iterator[Condition]:
    of_part = ("provider", "route", "stream") if selection.is_of_acceptance else ("route", "stream")
    for name in of_part:
        if (wanted := getattr(selection, name)) is not None:
            yield delivery.c[name] == wanted
    if selection.reason is not None:
        yield has_text(delivery.c.reason, selection.reason)


def message_conditions(tx: Transaction, selection: Selection) -> Iterator[ColumnElement[bool]]:
    """Yield what holds of the messages."""
    yield from _source_conditions(selection)
    for name in ("sender", "subject"):
        if (part := getattr(selection, name)) is not None:
            yield has_text(message.c[name], part)
    if selection.sender_domain is not None:
        yield domain_of(message.c.sender) == selection.sender_domain.lower()
    if selection.accepted_before_ms is not None:
        yield message.c.accepted_at_ms < tx.to_stored(selection.accepted_before_ms)
    if selection.is_of_acceptance:
        yield from _within(tx, selection, message.c.accepted_at_ms)
        for recipient_condition in _recipient_conditions(selection):
            yield exists().where(recipient.c.queue_id == message.c.queue_id, recipient_condition)


def _source_conditions(selection: Selection) -> Iterator[ColumnElement[bool]]:
    if (client := selection.client) is not None:
        yield (message.c.source_client == client) | (message.c.source_user == client)
    if selection.host is not None:
        yield func.lower(HOST) == selection.host.lower()
    if selection.uid is not None:
        yield message.c.source_uid == selection.uid
    if selection.script is not None:
        yield has_text(message.c.source_script, selection.script)


def _within(
    tx: Transaction, selection: Selection, at_ms: ColumnElement[int]
) -> Iterator[ColumnElement[bool]]:
    if selection.since_ms is not None:
        yield at_ms >= tx.to_stored(selection.since_ms)
    if selection.until_ms is not None:
        yield at_ms <= tx.to_stored(selection.until_ms)


def _recipient_conditions(selection: Selection) -> Iterator[ColumnElement[bool]]:
    if selection.recipient is not None:
        yield has_text(recipient.c.address, selection.recipient)
    if selection.reply is not None and not selection.attempts:
        said = has_text(recipient.c.reply, selection.reply)
        is_its = (provider_event.c.queue_id == recipient.c.queue_id) & (
            provider_event.c.rcpt_no == recipient.c.rcpt_no
        )
        reported = exists().where(is_its, has_text(provider_event.c.detail, selection.reply))
        yield or_(said, reported) if selection.verdicts else said
    if selection.domain is not None:
        yield domain_of(recipient.c.address) == selection.domain.lower()


def _id_range(selection: Selection, queue_id: ColumnElement[str]) -> Iterator[ColumnElement[bool]]:
    """Yield what times say of ids: what was accepted later ended later, too."""
    if selection.since_ms is not None and selection.is_of_acceptance:
        yield queue_id >= first_id_at(selection.since_ms - CLOCKS_MS)
    ends_ms = (selection.until_ms, selection.accepted_before_ms)
    for end_ms in ends_ms:
        if end_ms is not None:
            yield queue_id <= first_id_at(end_ms + CLOCKS_MS)


def matching_ids(
    tx: Transaction, selection: Selection, *, limit: int, after: str, newest_first: bool = False
) -> list[str]:
    """Return the ids of matching messages in the order of acceptance, or the other way round."""
    ids = sorted(set(selection.queue_ids))
    selection = replace(selection, queue_ids=())
    query, queue_id = _way_of(selection)(tx, selection)
    query = query.where(*_id_range(selection, queue_id))
    if after:
        query = query.where(queue_id < after if newest_first else queue_id > after)
    if selection.is_of_few:
        # a table of its own, so that nobody goes through all mail in the order of its ids
        few = query.offset(0).subquery()
        query, queue_id = select(few.c.queue_id), few.c.queue_id
    query = query.order_by(queue_id.desc() if newest_first else queue_id).limit(limit)
    if not ids:
        return [row[0] for row in tx.execute(query)]
    found = [row[0] for row in rows_in(tx, query, queue_id, ids)]
    return sorted(found, reverse=newest_first)[:limit]


_Found = tuple[Select[Any], ColumnElement[str]]


def _way_of(selection: Selection) -> Callable[[Transaction, Selection], _Found]:
    if selection.attempts:
        return _by_attempt
    if not selection.verdicts:
        return _by_result if selection.results else _by_state
    return _by_either if selection.results else _by_verdict


def _by_state(tx: Transaction, selection: Selection) -> _Found:
    of_messages = list(message_conditions(tx, selection))
    query = select(delivery.c.queue_id).distinct().where(*delivery_conditions(selection))
    if of_messages:
        joined = message.c.queue_id == delivery.c.queue_id
        query = query.join(message, joined).where(*of_messages)
    return query, delivery.c.queue_id


def _by_result(tx: Transaction, selection: Selection) -> _Found:
    """Return the messages of which recipients came to results, from the index that knows them."""
    of_messages = list(message_conditions(tx, selection))
    of_recipients = list(_ended_conditions(selection))
    if selection.results == _CAPTURED:
        at_ms = message.c.captured_at_ms
        query = select(message.c.queue_id).where(at_ms.is_not(None), *of_messages)
        if of_recipients:
            is_its = recipient.c.queue_id == message.c.queue_id
            is_captured = recipient.c.state == RecipientState.CAPTURED.value
            query = query.where(exists().where(is_its, is_captured, *of_recipients))
        return query.where(*_within(tx, selection, at_ms)), message.c.queue_id
    is_so = recipient.c.state.in_(sorted(selection.results))
    within = _within(tx, selection, recipient.c.changed_at_ms)
    query = select(recipient.c.queue_id).distinct().where(is_so, *within, *of_recipients)
    if selection.results <= RARE_RESULTS:
        query = query.where(HAS_RARE_OUTCOME)
    if of_messages:
        joined = message.c.queue_id == recipient.c.queue_id
        query = query.join(message, joined).where(*of_messages)
    return query, recipient.c.queue_id


def _by_verdict(tx: Transaction, selection: Selection) -> _Found:
    """Return the messages with last words on recipients, from the index that knows them."""
    conditions: list[ColumnElement[bool]] = [verdict.c.kind.in_(sorted(selection.verdicts))]
    conditions += _within(tx, selection, verdict.c.at_ms)
    if of_recipients := list(_ended_conditions(selection)):
        conditions.append(exists().where(IS_LAST_WORD, *of_recipients))
    query = select(verdict.c.queue_id).distinct()
    if of_messages := list(message_conditions(tx, selection)):
        query = query.join(message, message.c.queue_id == verdict.c.queue_id)
        conditions += of_messages
    return query.where(*conditions), verdict.c.queue_id


def _by_either(tx: Transaction, selection: Selection) -> _Found:
    """Return the messages with these results, and those with these last words."""
    if selection.is_of_few:
        ways = (_by_result(tx, selection)[0], _by_verdict(tx, selection)[0])
        found = union(*ways).subquery()
        return select(found.c.queue_id), found.c.queue_id
    # through all recipients in the order of ids, which is short: most are what is looked for
    has_ended = recipient.c.state.in_(sorted(selection.results))
    was_told = verdict.c.kind.in_(sorted(selection.verdicts))
    is_so = [
        and_(has_ended, *_within(tx, selection, recipient.c.changed_at_ms)),
        exists().where(IS_LAST_WORD, was_told, *_within(tx, selection, verdict.c.at_ms)),
    ]
    query = select(recipient.c.queue_id).distinct()
    query = query.where(or_(*is_so), *_ended_conditions(selection))
    if of_messages := list(message_conditions(tx, selection)):
        joined = message.c.queue_id == recipient.c.queue_id
        query = query.join(message, joined).where(*of_messages)
    return query, recipient.c.queue_id


IS_LAST_WORD = (verdict.c.queue_id == recipient.c.queue_id) & (
    verdict.c.rcpt_no == recipient.c.rcpt_no
)


def _ended_conditions(selection: Selection) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions on a recipient that came to a result, or of whom something was told."""
    yield from _recipient_conditions(selection)
    if of_part := list(_part_conditions(selection)):
        yield exists().where(IS_ITS_RECIPIENT, *of_part)
    if selection.provider is not None:
        yield recipient.c.provider == selection.provider
    if states := list(_state_conditions(selection)):
        yield exists().where(delivery.c.queue_id == recipient.c.queue_id, *states)


ATTEMPTED_ID = attempt.c.queue_id.concat("")
"""The id itself; with a bare column SQLite reads all attempts in the order of their ids."""
_R = RecipientState
_SERVED = [
    recipient_state.value for recipient_state in (_R.DELIVERED, _R.BOUNCED, _R.BLOCKED, _R.CAPTURED)
]
IS_TRIED_FOR = (recipient.c.queue_id == attempt.c.queue_id) & or_(
    recipient.c.rcpt_no == attempt.c.rcpt_no,
    attempt.c.rcpt_no.is_(None)
    & (recipient.c.delivery_no == attempt.c.delivery_no)
    & or_(  # who was served before was not tried
        recipient.c.state.not_in(_SERVED),
        recipient.c.changed_at_ms >= attempt.c.since_ms,
    ),
)


def _by_attempt(tx: Transaction, selection: Selection) -> _Found:
    """Return the messages that attempts put off, from the index of those."""
    conditions: list[Condition] = [HAS_PUT_OFF, attempt.c.state.in_(sorted(selection.attempts))]
    if selection.since_ms is not None:
        conditions.append(attempt.c.at_ms >= tx.to_stored(selection.since_ms))
    if selection.until_ms is not None:
        conditions.append(attempt.c.since_ms <= tx.to_stored(selection.until_ms))
    if selection.provider is not None:
        conditions.append(attempt.c.provider == selection.provider)
    if selection.reply is not None:
        conditions.append(has_text(attempt.c.reply, selection.reply))
    query = select(ATTEMPTED_ID.label("queue_id")).distinct()
    of_recipients = list(_recipient_conditions(selection))
    if selection.results or selection.verdicts:
        was_told = verdict.c.kind.in_(sorted(selection.verdicts))
        has_ended = recipient.c.state.in_(sorted(selection.results))
        of_recipients.append(or_(has_ended, exists().where(IS_LAST_WORD, was_told)))
    if of_recipients:
        conditions.append(exists().where(IS_TRIED_FOR, *of_recipients))
    is_its = (delivery.c.queue_id == attempt.c.queue_id) & (
        delivery.c.delivery_no == attempt.c.delivery_no
    )
    if of_part := [*_part_conditions(selection), *_state_conditions(selection)]:
        conditions.append(exists().where(is_its, *of_part))
    if of_messages := list(message_conditions(tx, selection)):
        query = query.join(message, message.c.queue_id == attempt.c.queue_id)
        conditions += of_messages
    return query.where(*conditions), ATTEMPTED_ID


def count_rare(tx: Transaction, since_ms: int) -> Counter[RecipientState]:
    """Count recipients by rare result: see Queue.count_results."""
    query = (
        select(recipient.c.state, func.count())
        .where(
            HAS_RARE_OUTCOME,
            recipient.c.state.in_(sorted(RARE_RESULTS)),
            recipient.c.changed_at_ms >= tx.to_stored(since_ms),
        )
        .group_by(recipient.c.state)
    )
    return Counter({RecipientState(state): number for state, number in tx.execute(query)})


HOST = func.coalesce(message.c.source_host, message.c.source_client, LOCAL_HOST)
"""Where a message came from, as classes of mail name it."""
IS_ITS_RECIPIENT = (recipient.c.queue_id == delivery.c.queue_id) & (
    recipient.c.delivery_no == delivery.c.delivery_no
)
PENDING_RECIPIENTS = (
    select(func.count())
    .where(IS_ITS_RECIPIENT, recipient.c.state == RecipientState.PENDING.value)
    .scalar_subquery()
)
"""How many recipients of a delivery still wait."""


def domain_of(address: ColumnElement[str]) -> ColumnElement[str]:
    """Return the text after the last @: the rest of it is cut off from the right."""
    local_part = func.rtrim(address, func.replace(address, "@", ""))
    return func.lower(func.substr(address, func.length(local_part) + 1))
