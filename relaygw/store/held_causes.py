"""What held mail waits for, where that is more than one cause; and causes that a person lifted.

A delivery that is held for one cause has it in its own columns, and no row here. From the second
cause on each of them is a row, and the delivery is held for "several causes: ...", which an older
version takes for a cause of its own that nothing but a person ends. A row from before the delivery
was held last counts no more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    and_,
    case,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.hold import SEVERAL, HoldCause, HoldCode, cause_in, several
from relaygw.mail.state import DeliveryState
from relaygw.store.database import BatchStatement, Row, Transaction, insert_into
from relaygw.store.queue_tables import Key, delivery, held_cause

_C, _D = held_cause.c, delivery.c
_IS_ITS = (_C.queue_id == _D.queue_id) & (_C.delivery_no == _D.delivery_no)
IN_FORCE = and_(_IS_ITS, _C.lifted_at_ms.is_(None), _C.since_ms >= _D.held_at_ms)
"""A row of a cause that its delivery is held for; as a string it is SQL without parameters."""
HAS_SEVERAL = and_(
    func.coalesce(_D.hold_code, "") == HoldCode.OTHER.value,
    func.substr(func.coalesce(_D.reason, ""), 1, len(SEVERAL)) == SEVERAL,
    exists().where(IN_FORCE),
)
"""A delivery is held for several causes."""
INSERT_CAUSES = insert_into(
    "held_cause",
    "queue_id delivery_no cause_no hold_code hold_key since_ms lifted_at_ms lifted_by",
)
_HOLD_FOR = BatchStatement(
    """
    UPDATE delivery
    SET reason = v.column3, hold_code = v.column4, hold_key = v.column5, changed_at_ms = v.column6,
        held_at_ms = COALESCE(held_at_ms, v.column7)
    FROM (VALUES {rows}) AS v
    WHERE delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
    """,
    columns=7,
)


class Held(NamedTuple):
    """A cause that a delivery is held for, by the database's clock."""

    cause: HoldCause
    since_ms: int


Causes = dict[Key, list[Held]]


def held_deliveries(tx: Transaction, which: ColumnElement[bool]) -> Causes:
    """Return held deliveries, locked, each with all that it is held for, the oldest first."""
    is_held = _D.state == DeliveryState.HELD.value
    columns = _D["queue_id", "delivery_no", "hold_code", "hold_key", "reason"]
    query = select(*columns, func.coalesce(_D.held_at_ms, _D.changed_at_ms)).where(which, is_held)
    rows = tx.execute(query.order_by(_D.queue_id, _D.delivery_no).with_for_update()).all()
    alone = {(row[0], row[1]): [Held(cause_in(*row[2:5]), row[5])] for row in rows}
    of_several = [key for key, held in alone.items() if held[0].cause.is_of_several]
    return alone | causes_of(tx, of_several)


def causes_of(tx: Transaction, keys: Collection[Key]) -> Causes:
    """Return those of the deliveries that are held for several causes, with these."""
    causes: Causes = defaultdict(list)
    if not keys:
        return causes
    query = select(*_C["queue_id", "delivery_no", "hold_code", "hold_key", "since_ms"])
    is_listed = tuple_(_C.queue_id, _C.delivery_no).in_(list(keys))
    ordered = query.join(delivery, IN_FORCE).where(is_listed).order_by(_C.cause_no)
    for queue_id, delivery_no, code, key, since_ms in tx.execute(ordered):
        causes[queue_id, delivery_no].append(Held(HoldCause(HoldCode(code), key), since_ms))
    return causes


def add_cause(
    tx: Transaction, which: ColumnElement[bool], cause: HoldCause, now_ms: int
) -> list[Key]:
    """Hold what is held already for one cause more; return what was not held for it before."""
    known = held_deliveries(tx, which)
    added = {
        key: [*held, Held(cause, now_ms)]
        for key, held in known.items()
        if cause not in [each.cause for each in held]
    }
    write_causes(tx, added, now_ms)
    return list(added)


def hold_all_besides(
    connection: Connection, which: ColumnElement[bool], cause: HoldCause, now_ms: int
) -> int:
    """Hold all held deliveries of a whole queue for one cause more; return how many.

    Of a queue that no process has open.
    """
    since_ms = func.coalesce(_D.held_at_ms, _D.changed_at_ms)
    ids = _D["queue_id", "delivery_no"]
    last_no = select(func.coalesce(func.max(_C.cause_no), -1)).where(_IS_ITS).scalar_subquery()
    code = func.coalesce(_D.hold_code, HoldCode.OTHER.value)
    own = select(*ids, last_no + 1, code, func.coalesce(_D.hold_key, _D.reason, ""), since_ms)
    more = select(*ids, last_no + 1, literal(cause.code.value), literal(cause.key), literal(now_ms))
    for rows in (own.where(which, ~HAS_SEVERAL), more.where(which)):
        connection.execute(held_cause.insert().from_select([*_C.keys()[:6]], rows))
    before = case((HAS_SEVERAL, ""), else_=SEVERAL)
    said = before + func.coalesce(_D.reason, "") + literal(f"; {cause.sentence}")
    values = {"reason": said, "hold_code": HoldCode.OTHER.value, "hold_key": said}
    values |= {"held_at_ms": since_ms}
    return connection.execute(update(delivery).where(which).values(values)).rowcount


def end_causes(
    tx: Transaction,
    which: ColumnElement[bool],
    is_over: Callable[[HoldCause], bool],
    now_ms: int,
    *,
    lifted_by: str | None = None,
) -> Causes:
    """End causes of held deliveries, or note that a person lifts them.

    Returns those deliveries for which it ended any, with what they are still held for: the caller
    makes those due that nothing holds any more.
    """
    known = held_deliveries(tx, which)
    over = {key: [each for each in held if is_over(each.cause)] for key, held in known.items()}
    over = {key: held for key, held in over.items() if held}
    left = {key: [each for each in known[key] if each not in held] for key, held in over.items()}
    if lifted_by is not None:
        _note_lifted(tx, over, lifted_by, now_ms)
    write_causes(tx, {key: held for key, held in left.items() if held}, now_ms)
    return left


def write_causes(tx: Transaction, causes: Mapping[Key, Sequence[Held]], now_ms: int) -> None:
    """Let held deliveries be held for these causes, one at least each."""
    if not causes:
        return
    last_no = _forget(tx, causes)
    rows = [
        (*key, last_no[key] + number, each.cause.code.value, each.cause.key, each.since_ms)
        for key, held in causes.items()
        if len(held) > 1
        for number, each in enumerate(held, 1)
    ]
    INSERT_CAUSES.run(tx, [(*row, None, None) for row in rows])
    said = []
    for key, held in causes.items():
        why = hold_columns(several([each.cause for each in held])).values()
        said.append((*key, *why, now_ms, min(each.since_ms for each in held)))
    _HOLD_FOR.run(tx, said)


def cause_rows(
    queue_id: str, delivery_no: int, since_ms: int, causes: Sequence[HoldCause]
) -> Iterator[Row]:
    """Yield the rows of a new delivery for `INSERT_CAUSES`: none of a single cause."""
    for number, cause in enumerate(causes if len(causes) > 1 else ()):
        yield queue_id, delivery_no, number, cause.code.value, cause.key, since_ms, None, None


def lift_causes(tx: Transaction, queue_ids: Sequence[str], *, actor: str, now_ms: int) -> None:
    """Note that a person lifts all causes of messages; the caller makes them due."""
    _note_lifted(tx, held_deliveries(tx, _D.queue_id.in_(queue_ids)), actor, now_ms)


def _note_lifted(
    tx: Transaction, lifted: Mapping[Key, Iterable[Held]], actor: str, now_ms: int
) -> None:
    last_no = _forget(tx, lifted)
    rows = [
        (*key, last_no[key] + number, it.cause.code.value, it.cause.key, it.since_ms, now_ms, actor)
        for key, held in lifted.items()
        for number, it in enumerate(held, 1)
    ]
    INSERT_CAUSES.run(tx, rows)


def _forget(tx: Transaction, keys: Collection[Key]) -> dict[Key, int]:
    """Delete the causes in force; return the highest number of those that were lifted."""
    is_listed = tuple_(_C.queue_id, _C.delivery_no).in_(list(keys))
    tx.execute(delete(held_cause).where(is_listed, _C.lifted_at_ms.is_(None)))
    numbers = select(_C.queue_id, _C.delivery_no, func.max(_C.cause_no)).where(is_listed)
    last_no = dict.fromkeys(keys, -1)
    grouped = numbers.group_by(_C.queue_id, _C.delivery_no)
    for queue_id, delivery_no, number in tx.execute(grouped):
        last_no[queue_id, delivery_no] = number
    return last_no


def is_lifted(code: HoldCode, target: str, since_ms: int) -> ColumnElement[bool]:
    """Return that a person lifted a cause of a message that was there at a time already."""
    is_such = (_C.hold_code == code.value) & _begins(_C.hold_key, target)
    return exists().where(_C.queue_id == _D.queue_id, is_such, _C.lifted_at_ms >= since_ms)


def is_held_for(code: HoldCode, target: str) -> ColumnElement[bool]:
    """Return that a held delivery is held for a cause of a target, alone or beside others."""
    alone = func.coalesce(_D.hold_code, "") == code.value
    alone &= _begins(func.coalesce(_D.hold_key, ""), target)
    is_such = (_C.hold_code == code.value) & _begins(_C.hold_key, target)
    return or_(alone, exists().where(IN_FORCE, is_such))


def _begins(key: ColumnElement[Any], target: str) -> ColumnElement[bool]:
    return key.startswith(f"{target} ", autoescape=True)


def oldest_held_for(cause: HoldCause, limit: int) -> Any:
    """Return a query of deliveries that are held for this beside other causes, the oldest first."""
    is_for = (_C.hold_code == cause.code.value) & (_C.hold_key == cause.key)
    query = select(_D.queue_id, _D.delivery_no).join(held_cause, IN_FORCE)
    is_held = _D.state == DeliveryState.HELD.value
    return query.where(is_for, is_held).order_by(_C.queue_id).limit(limit)


def hold_columns(cause: HoldCause | None) -> dict[str, str | None]:
    """Return the values of `delivery` that say why one is held or put off; None: it is not."""
    if cause is None:
        return {"reason": None, "hold_code": None, "hold_key": None}
    return {"reason": cause.sentence, "hold_code": cause.code.value, "hold_key": cause.key}
