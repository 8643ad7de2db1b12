"""What receivers of webhooks are still to be told, how they do, and what they may be told again.

The events of a receiver go in their order, a post at a time. A post is written down before it is
sent, with its id, so that it is the same however often it is tried, and by whom. Its marks are not
synced by themselves: after a power cut the last posts may go once more, with other ids.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import delete, func, select, update
from sqlalchemy.sql.elements import ColumnElement

from relaygw.policy.receivers import MOST_COUNTED, Endpoint
from relaygw.store.audit import AuditEntry, add_audit
from relaygw.store.batches import in_batches
from relaygw.store.database import (
    BatchStatement,
    Repository,
    Row,
    Statement,
    Transaction,
    Write,
    insert_into,
)
from relaygw.store.side_tables import webhook_endpoint, webhook_event

_E, _P = webhook_event.c, webhook_endpoint.c
_LATEST_MS = 253_402_300_799_000  # the last second of the year 9999
_A_STEP = 500  # rows that are deleted, or sent again, by one statement
_TIMES = (
    *("next_at_ms", "failing_since_ms", "paused_at_ms", "disabled_at_ms", "taken_at_ms"),
    "dropped_at_ms",
)
_SEE = insert_into(
    "webhook_endpoint",
    "endpoint seen_at_ms label",
    on_conflict="(endpoint) DO UPDATE SET seen_at_ms = excluded.seen_at_ms, label = excluded.label",
    failures=0,
    next_at_ms=0,
    dropped=0,
)
_ENDPOINTS = Statement("SELECT * FROM webhook_endpoint ORDER BY endpoint")
_SEEN = select(_P.endpoint, _P.seen_at_ms)
_IS_WAITING = _E.sent_at_ms.is_(None)


class WebhookEvent(NamedTuple):  # made for each delivered mail, so as cheaply as can be
    """What a receiver is told of one recipient; of deleted mail only what the event itself says."""

    event_id: str  # the same for every receiver, and whenever it is sent
    at_ms: int
    event_no: int
    queue_id: str
    rcpt_no: int
    kind: str  # see mail.verdict
    verdict: str | None = None  # a provider's word, None: an outcome
    provider: str | None = None
    reply: str | None = None
    dsn: str | None = None
    address: str | None = None
    original: str | None = None
    sender: str | None = None
    message_id: str | None = None
    link_value: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookPost:
    """What a receiver gets by one request; `post_id` and events stay the same until it took it."""

    post_id: str
    events: tuple[WebhookEvent, ...]
    failures: int  # of this receiver, one after the other, until now
    is_paused: bool
    is_full: bool = False  # more may wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """Which events that were sent: every condition set must hold."""

    endpoints: Collection[str]
    before_ms: int  # queued before
    since_ms: int | None = None  # queued since
    queue_ids: Sequence[str] = ()


class Outbox(Repository):
    """Receivers by their ids, and their events."""

    # --- sending -------------------------------------------------------------------------

    def see_endpoints(self, labels: Mapping[str, str]) -> dict[str, int]:
        """Note which receivers an instance has in its settings; return when each was seen last.

        `labels`: by id, what each is called where it is in the settings no more; no secret.
        """
        with self._write(Write.UNSYNCED) as tx:
            now_ms = tx.now_ms()
            _SEE.run(
                tx, [(endpoint_id, now_ms, label) for endpoint_id, label in sorted(labels.items())]
            )
            return dict(map(tuple, tx.execute(_SEEN)))

    def next_post(
        self,
        endpoint: str,
        *,
        limit: int,
        fits: Callable[[Sequence[WebhookEvent]], int],
    ) -> WebhookPost | None:
        """Return the post under way, else one of the oldest events; None: nothing may go now.

        At most `limit` events, and of those as many as `fits` says, one at least. Nobody has to
        wait for that: what another instance has sent meanwhile is seen when the post is written.
        """
        with self._read() as tx:
            found = _MAY_GO.fetch(tx, tx.now_ms(), endpoint)
            if not found:
                return None
            ((post_id, numbers, taken_at_ms, failures, paused_at_ms),) = found
            events, is_begun = _of_post(tx, json.loads(numbers or "[]")), True
            if not events:
                events, is_begun = _events(tx, _NEXT.fetch(tx, endpoint, limit)), False
        if not events:
            return None
        is_full = True
        if not is_begun:
            room = max(fits(events), 1)
            is_full = room < len(events) or len(events) == limit
            events = events[:room]
            numbers = json.dumps([event.event_no for event in events])
            before = (post_id or "", taken_at_ms or 0)
            post_id = f"msg_{secrets.token_hex(12)}"
            with self._write(Write.UNSYNCED) as tx:
                if not _BEGIN.run(tx, post_id, numbers, endpoint, *before):
                    return None
        return WebhookPost(
            post_id=post_id,
            events=tuple(events),
            failures=failures,
            is_paused=paused_at_ms is not None,
            is_full=is_full,
        )

    def note_taken(self, endpoint: str, post_id: str) -> None:
        """Note that a receiver took a post; nothing if that was noted before."""
        with self._write(Write.UNSYNCED) as tx:
            for current, numbers in _LOCK.fetch(tx, endpoint):
                if current == post_id:
                    now_ms = tx.now_ms()
                    _MARK.run(tx, [(now_ms, number) for number in json.loads(numbers)])
                    _END.run(tx, now_ms, endpoint)

    def note_refused(
        self, endpoint: str, reason: str, *, wait_ms: int, pause_after_ms: int, is_gone: bool
    ) -> bool:
        """Note why a receiver did not take a post; it is tried again after `wait_ms`.

        One that fails for as long as `pause_after_ms` is paused; `is_gone`: it is not tried any
        more. Returns True where this has just paused it.
        """
        with self._write(Write.UNSYNCED) as tx:
            found = _lock(tx, endpoint)
            if found is None:
                return False
            now_ms = tx.now_ms()
            since_ms = found.failing_since_ms or now_ms
            is_paused = found.paused_at_ms is None and now_ms - since_ms >= pause_after_ms
            changes = {
                "failures": found.failures + 1,
                "next_at_ms": now_ms + wait_ms,
                "failing_since_ms": since_ms,
                "paused_at_ms": now_ms if is_paused else found.paused_at_ms,
                "disabled_at_ms": now_ms if is_gone else found.disabled_at_ms,
                "last_error": reason,
            }
            _set(tx, endpoint, **changes)
            return is_paused

    # --- what operators see and do -------------------------------------------------------

    def endpoints(self) -> list[Endpoint]:
        """Return how all receivers do that were ever in the settings and are not removed."""
        with self._read() as tx:
            return [_endpoint(tx, row) for row in _ENDPOINTS.fetch_named(tx)]

    def resume(self, endpoint: str, *, entry: AuditEntry) -> bool:
        """Let a receiver be tried now, also one that was disabled; audited; False: unknown."""
        with self._write() as tx:
            values = {"next_at_ms": 0, "disabled_at_ms": None}
            is_known = _set(tx, endpoint, **values) > 0
            add_audit(tx, entry, int(is_known))
            return is_known

    def count_sent(self, which: Sent) -> int:
        """Return how many events `send_again` would send again."""
        with self._read() as tx:
            number = select(func.count()).select_from(webhook_event)
            return sum(
                tx.execute(number.where(column_element)).scalar_one()
                for column_element in _sent(tx, which)
            )

    def send_again(self, which: Sent, *, entry: AuditEntry | None) -> int:
        """Let a step of events go once more, before what waits already; return how many, 0: all do.

        `entry`, with the first step, says of how many.
        """
        number = 0
        with self._write() as tx:
            now_ms = max(tx.now_ms(), tx.to_stored(which.before_ms))  # not found again
            for is_mine in _sent(tx, which):
                step = select(_E.event_no).where(is_mine).order_by(_E.event_no)
                found = list(tx.execute(step.limit(_A_STEP - number)).scalars())
                again = update(webhook_event).where(_E.event_no.in_(found))
                tx.execute(again.values(sent_at_ms=None, queued_at_ms=now_ms))
                number += len(found)
                if number == _A_STEP:
                    break
            if entry is not None:
                add_audit(tx, entry, entry.affected)
        return number

    # --- keeping it small ----------------------------------------------------------------

    def forget_told(self, older_than_ms: int) -> tuple[bool, dict[str, int]]:
        """Delete a step of events sent so long ago, or waiting for so long.

        Returns whether more may be left, and how many that waited were dropped, by receiver.
        """
        with self._read() as tx:
            end_ms = tx.now_ms() - older_than_ms
            oldest = select(*_E["event_no", "queued_at_ms", "sent_at_ms", "endpoint"])
            rows = tx.execute(oldest.order_by(_E.event_no).limit(_A_STEP)).all()
        old = [row for row in rows if (row.sent_at_ms or row.queued_at_ms) < end_ms]
        if not old:
            return False, {}
        with self._write(Write.UNSYNCED) as tx:
            is_old = func.coalesce(_E.sent_at_ms, _E.queued_at_ms) < end_ms
            mine = _E.event_no.in_([row.event_no for row in old])
            gone = delete(webhook_event).where(mine, is_old)
            dropped: dict[str, int] = {}
            for endpoint, sent_at_ms in tx.execute(gone.returning(_E.endpoint, _E.sent_at_ms)):
                if sent_at_ms is None:
                    dropped[endpoint] = dropped.get(endpoint, 0) + 1
            now_ms = tx.now_ms()
            for endpoint, number in sorted(dropped.items()):
                _set(tx, endpoint, dropped=_P.dropped + number, dropped_at_ms=now_ms)
        return len(old) == len(rows) == _A_STEP, dropped

    def forget_endpoint(self, endpoint: str, *, seen_at_ms: int) -> int | None:
        """Remove a receiver that is in no settings any more: a step of its events that wait.

        Returns how many these were, and None once all is gone, or somebody has it in the settings.
        """
        waits = select(_E.event_no).where(_E.endpoint == endpoint, _IS_WAITING)
        with self._write() as tx:
            found = _lock(tx, endpoint)
            if found is None or found.seen_at_ms != seen_at_ms:
                return None
            step = list(tx.execute(waits.order_by(_E.event_no).limit(_A_STEP)).scalars())
            tx.execute(delete(webhook_event).where(_E.event_no.in_(step)))
            if not step:
                tx.execute(delete(webhook_endpoint).where(_P.endpoint == endpoint))
            return len(step) or None


def _lock(tx: Transaction, endpoint: str) -> Any:
    query = select(webhook_endpoint).where(_P.endpoint == endpoint)
    return tx.execute(query.with_for_update()).one_or_none()


def _set(tx: Transaction, endpoint: str, **values: Any) -> int:
    mine = update(webhook_endpoint).where(_P.endpoint == endpoint)
    return tx.execute(mine.values(values)).rowcount


# of a receiver that may be asked now
_MAY_GO = Statement(
    """
    SELECT post_id, post_events, taken_at_ms, failures, paused_at_ms FROM webhook_endpoint
    WHERE disabled_at_ms IS NULL AND next_at_ms <= {?} AND endpoint = {?}
    """
)
_LOCK = Statement(
    "SELECT post_id, post_events FROM webhook_endpoint WHERE endpoint = {?} {for_update}"
)
# as long as no other post was begun or taken since
_BEGIN = Statement(
    """
    UPDATE webhook_endpoint SET post_id = {?}, post_events = {?}
    WHERE endpoint = {?} AND COALESCE(post_id, '') = {?} AND COALESCE(taken_at_ms, 0) = {?}
    """
)
_MARK = BatchStatement(
    """
    UPDATE webhook_event SET sent_at_ms = v.column1 FROM (VALUES {rows}) AS v
    WHERE webhook_event.event_no = v.column2
    """,
    columns=2,
)
_END = Statement(
    """
    UPDATE webhook_endpoint
    SET post_id = NULL, post_events = NULL, next_at_ms = 0, taken_at_ms = {?}, failures = 0,
        failing_since_ms = NULL, paused_at_ms = NULL, disabled_at_ms = NULL, last_error = NULL
    WHERE endpoint = {?}
    """
)
# in the order of WebhookEvent, but its id
_SELECT_EVENTS = """
    SELECT webhook_event.at_ms, webhook_event.event_no, webhook_event.queue_id,
        webhook_event.rcpt_no, webhook_event.kind, webhook_event.verdict, webhook_event.provider,
        webhook_event.reply, webhook_event.dsn, recipient.address, recipient.original,
        message.sender, message.message_id, message.link_value
    FROM webhook_event
    LEFT JOIN message ON message.queue_id = webhook_event.queue_id
    LEFT JOIN recipient ON recipient.queue_id = webhook_event.queue_id
        AND recipient.rcpt_no = webhook_event.rcpt_no
    WHERE webhook_event.sent_at_ms IS NULL AND
"""
_NEXT = Statement(
    _SELECT_EVENTS + "webhook_event.endpoint = {?} ORDER BY webhook_event.event_no LIMIT {?}"
)
_NAMED = BatchStatement(_SELECT_EVENTS + "webhook_event.event_no IN (VALUES {rows})", columns=1)


def _of_post(tx: Transaction, numbers: Sequence[int]) -> list[WebhookEvent]:
    """Return the events left of a post under way."""
    rows = _NAMED.fetch(tx, [(number,) for number in numbers])
    return _events(tx, sorted(rows, key=itemgetter(1)))


def _events(tx: Transaction, rows: Sequence[Row]) -> list[WebhookEvent]:
    """Return events of rows; a provider may have told any time, and none is."""
    events, ahead_ms = [], tx.ahead_ms
    for row in rows:
        at_ms, _, queue_id, rcpt_no, kind, verdict = row[:6]
        what = f"{queue_id} {rcpt_no} {kind} {verdict} {at_ms}".encode()
        event_id = f"ev_{blake2b(what, digest_size=12).hexdigest()}"
        local_ms = at_ms if verdict else at_ms - ahead_ms
        if not 0 <= local_ms <= _LATEST_MS:
            local_ms = 0 if local_ms < 0 else _LATEST_MS
        events.append(WebhookEvent(event_id, local_ms, *row[1:]))
    return events


def _endpoint(tx: Transaction, row: Any) -> Endpoint:
    waits = select(_E.queued_at_ms).where(_E.endpoint == row.endpoint, _IS_WAITING)
    oldest_ms = tx.execute(waits.order_by(_E.event_no).limit(1)).scalar()
    some = waits.limit(MOST_COUNTED + 1).subquery()
    number = tx.execute(select(func.count()).select_from(some)).scalar_one()
    waiting = {
        "waiting": min(number, MOST_COUNTED),
        "is_more_waiting": number > MOST_COUNTED,
        "oldest_at_ms": tx.to_local(oldest_ms),
    }
    return tx.entry(Endpoint, row, *_TIMES, **waiting)


def _sent(tx: Transaction, which: Sent) -> Iterator[ColumnElement[bool]]:
    """Yield what chooses events that were sent, one for each statement."""
    mine = _E.endpoint.in_(sorted(which.endpoints)) & _E.sent_at_ms.is_not(None)
    mine &= _E.queued_at_ms < tx.to_stored(which.before_ms)
    if which.since_ms is not None:
        mine &= _E.queued_at_ms >= tx.to_stored(which.since_ms)
    if not which.queue_ids:
        yield mine
    for batch in in_batches(which.queue_ids):
        yield mine & _E.queue_id.in_(batch)
