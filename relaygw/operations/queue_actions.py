"""Changes of queued mail: the table of them, what each leaves alone, and how it is carried out.

Only deliveries in the states that an action is meant for move; a message is left alone, and
named, when it has none or a worker is sending it. Each change leaves a line in the audit trail.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from relaygw.mail.hold import DOUBTFUL, OF_CONFIGURATION, HoldCause, HoldCode
from relaygw.mail.state import CLAIMABLE, EXPIRED_BY, DeliveryState, RecipientState
from relaygw.policy.recipients import AddressPatterns, Screen
from relaygw.policy.router import provider_of_route, providers_of
from relaygw.policy.untended import gone_remedy, gone_words, known_routes
from relaygw.settings.model import Settings, fingerprint
from relaygw.store.audit import AuditEntry
from relaygw.store.holds import PAUSES
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.selection import Selection
from relaygw.store.store import Store

BATCH_MESSAGES = 500
"""Messages changed in one transaction, so that the front never waits long for the store."""

MAX_IDS = 100_000
"""Ids of one search: a few MB."""

BEING_SENT = "a worker is sending it now"

_D = DeliveryState


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """A message that an action does not touch, and why."""

    queue_id: str
    why: str
    is_temporary: bool = False  # True: trying again later may work


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What an action did."""

    changed: tuple[str, ...]  # queue ids
    left: tuple[LeftAlone, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Who wants a change, and on what terms; an action looks at those that it takes."""

    actor: str
    detail: str = ""  # by what the messages were chosen, for the audit trail
    note: str = ""  # why it is held or expired; kept with the message
    is_forced: bool = False  # retried or moved although it may be sent twice
    provider: str = ""  # where mail is moved to
    senders: Sequence[str] = ()  # whom that provider may send as; none: everybody
    routes: frozenset[str] | None = None  # that mail is sent of; None: nobody can tell
    screen: Screen | None = None  # who may receive now; None: whoever sends finds out
    is_audited: bool = (
        True  # with the ids of its mail; False: who gives it writes a line of its own
    )
    pauses_of: Settings | None = None  # by these a retry ends the pauses of its mail's providers


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueAction:
    """A change of queued mail. The command line, the pages, the API and the story read it here."""

    name: str
    from_states: frozenset[DeliveryState]  # that it is meant for
    reached: frozenset[DeliveryState]
    needs_whole: bool = False  # a message of which a part is being sent is left alone
    takes_provider: bool = False
    help: str  # of the command
    note_help: str = ""  # "": it takes no note
    force_help: str = ""  # "": it cannot be forced
    means: str  # what comes of it, for pages and the API
    done: str  # 3 messages ...
    notice: str  # of a page: 3 messages ...
    told: str  # of the story: operator ann ...
    icon: str
    is_usual: bool = False  # has a button of its own beside the list
    is_danger: bool = False
    objection: Callable[[QueueEntry, Order], LeftAlone | None] = lambda _entry, _order: None

    @property
    def label(self) -> str:
        """The name for a button."""
        return self.name.capitalize()


def objection(action: QueueAction, entry: QueueEntry, order: Order) -> LeftAlone | None:
    """Return why a message is left alone; None: the action may change it."""
    states = {part.state for part in entry.deliveries}
    is_meant = bool(states & action.from_states)
    if _D.ACTIVE in states and (action.needs_whole or not is_meant):
        return LeftAlone(entry.queue_id, BEING_SENT, is_temporary=True)
    if not is_meant:
        shown, wanted = " and ".join(sorted(states)), " or ".join(sorted(action.from_states))
        why = f"it is {shown}; {action.name} is for mail that is {wanted}"
        return LeftAlone(entry.queue_id, why)
    return action.objection(entry, order)


def change_queued(
    store: Store, action: QueueAction, ids: Sequence[str], order: Order, *, now_ms: int
) -> Result:
    """Change the messages that may be changed as they are now, a batch a transaction.

    The changes are durable on return. Raises StoreUnavailable; batches before it are done.
    """
    changed: list[str] = []
    left: list[LeftAlone] = []
    routes: set[str] = set()
    for batch in batches(ids):
        judged = [(entry, objection(action, entry, order)) for entry in store.queue.entries(batch)]
        left += [obstacle for _, obstacle in judged if obstacle is not None]
        ready = [entry for entry, obstacle in judged if obstacle is None]
        taken = _change_ready(store, action, ready, order, now_ms) if ready else []
        left += taken
        lost = {left_alone.queue_id for left_alone in taken}
        changed += [
            queue_entry.queue_id for queue_entry in ready if queue_entry.queue_id not in lost
        ]
        routes |= {part.route for entry in ready for part in entry.deliveries}
    if changed and action is RETRY and order.pauses_of is not None:
        _end_pauses(store, order, order.pauses_of, routes, now_ms)
    return Result(changed=tuple(changed), left=tuple(left))


def _end_pauses(
    store: Store, order: Order, settings: Settings, routes: Collection[str], now_ms: int
) -> None:
    """Let providers of these routes that are paused or not reached be tried at once; audited."""
    names = {name for route in routes for name in providers_of(settings, route)}
    for hold in store.holds.in_force():
        if hold.scope in PAUSES and hold.key in names:
            entry = AuditEntry(
                at_ms=now_ms,
                actor=order.actor,
                action="provider.release",
                target=hold.key,
                affected=1,
                detail=f"queue.{RETRY.name}; {hold.scope}: {hold.reason}",
            )
            store.holds.drop_hold(hold.scope, hold.key, entry=entry)


def batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield ids, each once, as many as one transaction changes."""
    unique = tuple(dict.fromkeys(ids))
    for start in range(0, len(unique), BATCH_MESSAGES):
        yield unique[start : start + BATCH_MESSAGES]


def found_batches(
    store: Store, selection: Selection, *, limit: int = MAX_IDS, newest_first: bool = False
) -> Iterator[Sequence[str]]:
    """Yield the ids of what is selected, as many as one transaction changes.

    `limit` are found at once, since a search may look at the whole queue.
    """
    after = ""
    while True:
        ids = store.queue.search_ids(selection, limit=limit, after=after, newest_first=newest_first)
        yield from batches(ids)
        if len(ids) < limit:
            return
        after = ids[-1]


def routes_taken(store: Store, settings: Settings) -> frozenset[str] | None:
    """Return the routes that mail is sent of, None: a worker with other settings may know more."""
    mine = fingerprint(settings)
    is_other = any(
        instance.role == "delivery"
        and instance.state != "draining"
        and instance.fingerprint != mine
        for instance in store.instances.registered()
    )
    return None if is_other else known_routes(settings)


def screen_of(store: Store, settings: Settings) -> Screen | None:
    """Return who may receive now, None: no worker goes by these settings."""
    mine = fingerprint(settings)
    workers = (instance for instance in store.instances.registered() if instance.role == "delivery")
    return Screen(settings) if any(worker.fingerprint == mine for worker in workers) else None


def _change_ready(
    store: Store, action: QueueAction, ready: Sequence[QueueEntry], order: Order, now_ms: int
) -> list[LeftAlone]:
    moved_to = f"to={order.provider!r}" if action.takes_provider else ""
    note = f"note={order.note!r}" if action.note_help and order.note else ""
    audited = AuditEntry(
        at_ms=now_ms,
        actor=order.actor,
        action=f"queue.{action.name}",
        target=" ".join(_ids(ready)),
        affected=len(ready),
        detail=" ".join(filter(None, (moved_to, order.detail, note))),
    )
    expected = sum(
        part.state in action.from_states for queue_entry in ready for part in queue_entry.deliveries
    )
    if _write(store, action, ready, order, audited) >= expected:
        return []
    why = "a worker has just taken it"
    return [
        LeftAlone(entry.queue_id, why, is_temporary=True)
        for entry in store.queue.entries(_ids(ready))
        if not _is_reached(action, entry, order)
    ]


def _is_reached(action: QueueAction, entry: QueueEntry, order: Order) -> bool:
    if action.takes_provider:
        return order.provider in {provider_of_route(part.route) for part in entry.deliveries}
    return bool(action.reached & {part.state for part in entry.deliveries})


def _ids(entries: Iterable[QueueEntry]) -> list[str]:
    return [entry.queue_id for entry in entries]


def _write(
    store: Store, action: QueueAction, ready: Sequence[QueueEntry], order: Order, entry: AuditEntry
) -> int:
    """Write a change; return how many deliveries changed."""
    ids = _ids(ready)
    match action.name:
        case "undelete":
            return store.queue.undelete(ids, entry=entry)
        case "expire":
            reason = f"{EXPIRED_BY}{order.actor}" + (f": {order.note}" if order.note else "")
            return store.queue.expire(ids, reason=reason, entry=entry)
        case "move":
            ended, is_forced = _ended_by_move(ready, order), order.is_forced
            return store.queue.move(
                ids, provider=order.provider, ended=ended, is_forced=is_forced, entry=entry
            )
    (state,) = action.reached
    return store.queue.change_state(
        ids,
        from_states=action.from_states,
        to=state,
        hold=HoldCause(HoldCode.OPERATOR, order.note or order.actor) if action is HOLD else None,
        entry=entry,
        is_audited=order.is_audited,
    )


def _ended_by_move(ready: Sequence[QueueEntry], order: Order) -> set[HoldCause]:
    """Return the holds on account of the providers it had; others stay, or are set anew."""
    is_over = OF_CONFIGURATION | {HoldCode.STANDING} | (DOUBTFUL if order.is_forced else set())
    held = (part for entry in ready for part in entry.deliveries if part.state is _D.HELD)
    return {cause for part in held for cause in part.causes if cause.code in is_over}


# --- what each leaves alone of mail in the states that it is meant for ----------------------


def _objection_to_retry(entry: QueueEntry, order: Order) -> LeftAlone | None:
    for part in entry.deliveries if not order.is_forced else ():
        if part.state in RETRY.from_states and part.is_in_doubt:
            why = f"{part.provider} may have sent it already; with --force it may be sent twice"
            return LeftAlone(entry.queue_id, why, is_temporary=True)
    waiting = [part.route for part in entry.deliveries if part.state is _D.DEFERRED]
    if order.routes is None or not waiting or not order.routes.isdisjoint(waiting):
        return None
    why = f"no worker sends mail of {gone_words(waiting[0])}; {gone_remedy(waiting[0])}"
    return LeftAlone(entry.queue_id, why)


def _objection_to_hold(entry: QueueEntry, _: Order) -> LeftAlone | None:
    causes = (part.causes for part in entry.deliveries if part.state in HOLD.from_states)
    if all(any(cause.code is HoldCode.OPERATOR for cause in held) for held in causes):
        return LeftAlone(entry.queue_id, "an operator holds it already")
    return None


def _objection_to_release(entry: QueueEntry, order: Order) -> LeftAlone | None:
    causes = (cause for part in entry.deliveries for cause in part.causes)
    standing = dict.fromkeys(cause.hold_id for cause in causes if cause.hold_id is not None)
    if standing:
        ends = ", ".join(f"relaygw hold end {hold_id}" for hold_id in standing)
        why = f"a standing hold keeps it, with all mail like it: {ends}"
        return LeftAlone(entry.queue_id, why)
    if order.screen is None:
        return None
    for part in (delivery for delivery in entry.deliveries if delivery.state is _D.HELD):
        waiting = [
            recipient.address
            for recipient in entry.recipients
            if recipient.delivery_no == part.delivery_no
            and recipient.state is RecipientState.PENDING
        ]
        is_held = order.screen.holds_back(entry.source, entry.mode, part.released, waiting)
        if not (waiting and is_held):
            return None
    why = "the mode or recipients.allow permits none of its recipients; it would be held at once"
    return LeftAlone(entry.queue_id, why)


def _objection_to_undelete(entry: QueueEntry, _: Order) -> LeftAlone | None:
    if entry.chunk_count:
        return None
    why = "its content is gone: the rest of the message has been finished"
    return LeftAlone(entry.queue_id, why)


def _objection_to_move(entry: QueueEntry, order: Order) -> LeftAlone | None:
    provider = order.provider
    if order.senders and entry.sender and not AddressPatterns(order.senders).matches(entry.sender):
        why = f"provider {provider} may not send as {entry.sender}: see its senders"
        return LeftAlone(entry.queue_id, why)
    for part in entry.deliveries if not order.is_forced else ():
        if part.state not in MOVE.from_states:
            continue
        if part.is_in_doubt and part.provider != provider:
            why = f"{part.provider} may have sent it already; with --force it may be sent twice"
            return LeftAlone(entry.queue_id, why)
        for cause in part.causes:
            if cause.code is HoldCode.SENDER_REFUSED and provider in cause.providers:
                why = (
                    f"{provider} refuses sender domain {cause.domain}; with --force it is tried "
                    "there anyway, and mail taken without an answer may be sent twice"
                )
                return LeftAlone(entry.queue_id, why)
    return None


# --- the table ------------------------------------------------------------------------------

_UNSENT = frozenset({_D.INCOMING, _D.DEFERRED, _D.HELD})

RETRY = QueueAction(
    name="retry", icon="retry", from_states=CLAIMABLE, reached=frozenset({_D.DEFERRED}),
    help="Try deferred messages now.",
    force_help="Also mail that its provider may have sent already.",
    means="Deferred mail is tried now, also by a provider that is paused or was not reached. The "
    "attempts made so far still count.",
    done="due now", notice="retried", told="made it due at once",
    is_usual=True, objection=_objection_to_retry,
)  # fmt: skip
HOLD = QueueAction(
    name="hold", icon="hold", from_states=_UNSENT, reached=frozenset({_D.HELD}), needs_whole=True,
    help="Keep messages until they are released.",
    note_help="The reason, shown with the message.",
    means="Held mail stays in the queue, and is not tried until it is released, whatever else "
    "held it and ends.",
    done="held", notice="held", told="held it",
    is_usual=True, objection=_objection_to_hold,
)  # fmt: skip
RELEASE = QueueAction(
    name="release", icon="send", from_states=frozenset({_D.HELD}), reached=frozenset({_D.DEFERRED}),
    help="Release held messages: they are due now.",
    means="Held mail is due now, and its attempts start over.",
    done="released", notice="released", told="released it",
    is_usual=True, objection=_objection_to_release,
)  # fmt: skip
MOVE = QueueAction(
    name="move", icon="move", from_states=_UNSENT, reached=_UNSENT, needs_whole=True,
    takes_provider=True,
    help="Move messages to another provider.",
    force_help="Also mail that another provider may have sent, or that this one refuses.",
    means="From now on only this provider is used, and the mail is due now.",
    done="moved", notice="moved", told="moved it to another provider",
    objection=_objection_to_move,
)  # fmt: skip
UNDELETE = QueueAction(
    name="undelete", icon="undo", from_states=frozenset({_D.DELETED}),
    reached=frozenset({_D.DEFERRED, _D.HELD}),
    help="Restore messages from the trash.",
    means="Mail in the trash is due now; held mail is held as before.",
    done="back in the queue", notice="undeleted", told="restored it from the trash",
    objection=_objection_to_undelete,
)  # fmt: skip
EXPIRE = QueueAction(
    name="expire", icon="clock", from_states=_UNSENT, reached=frozenset({_D.FINISHED}),
    needs_whole=True,
    help="Expire messages now, as if their lifetime were over.",
    note_help="The reason, kept with the message.",
    means="The mail expires now, undelivered, as if its lifetime were over. This cannot be "
    "undone.",
    done="expired", notice="expired", told="expired it",
    is_danger=True,
)  # fmt: skip
DELETE = QueueAction(
    name="delete", icon="trash", from_states=_UNSENT, reached=frozenset({_D.DELETED}),
    needs_whole=True,
    help="Move messages to the trash for seven days.",
    means="It is not delivered. It stays in the trash for seven days, then it is deleted.",
    done="deleted", notice="trashed", told="put it into the trash",
    is_usual=True, is_danger=True,
)  # fmt: skip
ACTIONS = {
    queue_action.name: queue_action
    for queue_action in (RETRY, HOLD, RELEASE, MOVE, UNDELETE, EXPIRE, DELETE)
}
"""In the order in which they are offered."""
