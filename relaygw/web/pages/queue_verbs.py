"""What can be done to queued messages, and the words with which a page asks.

Pages and the API carry out the same; `operations` does it and writes the audit trail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from relaygw import operations
from relaygw.mail.state import DeliveryState
from relaygw.operations import MOVES, Action, Moving, Result
from relaygw.operations.moving import MOVABLE
from relaygw.settings.model import Settings
from relaygw.settings.provider import Provider
from relaygw.store.protocol import Store
from relaygw.web.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Who wants it, when, and what goes into the audit trail."""

    actor: str
    now_ms: int
    detail: str
    note: str = ""  # why it is held or expired, kept with the message
    provider: str = ""  # where mail is moved to
    is_forced: bool = False  # retried or moved although it may be sent twice


CarryOut = Callable[[Store, Settings, Sequence[str], Order], Result]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """A change of queued mail."""

    name: str
    label: str
    icon: str
    done: str  # the word for notices
    means: str  # what comes of it, in a sentence
    states: frozenset[DeliveryState]  # the states that it is meant for
    carry_out: CarryOut
    is_usual: bool = False  # has a button of its own beside the list
    is_danger: bool = False
    takes_note: bool = False
    takes_provider: bool = False
    takes_force: bool = False  # leaves alone what may have been sent, unless told otherwise


def _retry(store: Store, settings: Settings, ids: Sequence[str], order: Order) -> Result:
    return operations.retry(
        store,
        ids,
        actor=order.actor,
        now_ms=order.now_ms,
        detail=order.detail,
        is_forced=order.is_forced,
        routes=operations.routes_taken(store, settings),
    )


def _hold(store: Store, _: Settings, ids: Sequence[str], order: Order) -> Result:
    return operations.hold(
        store,
        ids,
        actor=order.actor,
        now_ms=order.now_ms,
        detail=order.detail,
        note=order.note,
    )


def _release(store: Store, _: Settings, ids: Sequence[str], order: Order) -> Result:
    return operations.release(
        store, ids, actor=order.actor, now_ms=order.now_ms, detail=order.detail
    )


def _delete(store: Store, _: Settings, ids: Sequence[str], order: Order) -> Result:
    return operations.delete(
        store, ids, actor=order.actor, now_ms=order.now_ms, detail=order.detail
    )


def _undelete(store: Store, _: Settings, ids: Sequence[str], order: Order) -> Result:
    return operations.undelete(
        store, ids, actor=order.actor, now_ms=order.now_ms, detail=order.detail
    )


def _expire(store: Store, _: Settings, ids: Sequence[str], order: Order) -> Result:
    return operations.expire(
        store,
        ids,
        actor=order.actor,
        now_ms=order.now_ms,
        detail=order.detail,
        note=order.note,
    )


def _move(store: Store, settings: Settings, ids: Sequence[str], order: Order) -> Result:
    moving = Moving(
        provider=order.provider,
        settings=known_provider(settings, order.provider),
        is_forced=order.is_forced,
    )
    return operations.move(
        store, ids, moving, actor=order.actor, now_ms=order.now_ms, detail=order.detail
    )


VERBS = {
    verb.name: verb
    for verb in (
        Verb(
            name="retry",
            label="Retry",
            icon="retry",
            done="retried",
            means="Deferred mail is tried now. The attempts made so far still count.",
            states=MOVES[Action.RETRY],
            carry_out=_retry,
            is_usual=True,
            takes_force=True,
        ),
        Verb(
            name="hold",
            label="Hold",
            icon="hold",
            done="held",
            means="Held mail stays in the queue, untried, until somebody releases it.",
            states=MOVES[Action.HOLD],
            carry_out=_hold,
            is_usual=True,
            takes_note=True,
        ),
        Verb(
            name="release",
            label="Release",
            icon="send",
            done="released",
            means="Held mail is due now and starts afresh.",
            states=MOVES[Action.RELEASE],
            carry_out=_release,
            is_usual=True,
        ),
        Verb(
            name="move",
            label="Move",
            icon="move",
            done="moved",
            means="The mail goes by one provider alone from now on, and is due now.",
            states=MOVABLE,
            carry_out=_move,
            takes_provider=True,
            takes_force=True,
        ),
        Verb(
            name="undelete",
            label="Undelete",
            icon="undo",
            done="undeleted",
            means="Mail in the trash is due now; what was held is held as before.",
            states=MOVES[Action.UNDELETE],
            carry_out=_undelete,
        ),
        Verb(
            name="expire",
            label="Expire",
            icon="clock",
            done="expired",
            means="The mail ends now, undelivered, as if its lifetime were over. "
            "This cannot be taken back.",
            states=MOVES[Action.EXPIRE],
            carry_out=_expire,
            is_danger=True,
            takes_note=True,
        ),
        Verb(
            name="delete",
            label="Delete",
            icon="trash",
            done="trashed",
            means="Nobody gets it. It stays in the trash for seven days, then it is gone.",
            states=MOVES[Action.DELETE],
            carry_out=_delete,
            is_usual=True,
            is_danger=True,
        ),
    )
}


def known_provider(settings: Settings, name: str) -> Provider:
    """Return the settings of a provider; raises Problem for a name that is none's."""
    if name not in settings.providers:
        names = ", ".join(settings.providers) or "none is configured"
        raise Problem(400, f"provider {name[:40]!r} is not known", expected=names)
    return settings.providers[name]
