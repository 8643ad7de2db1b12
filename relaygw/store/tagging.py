"""Tags of captured mail. Two spellings of a tag that differ in case only are one tag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, delete, func, select, update

from relaygw.mail.search import tag_key
from relaygw.store.batch import insert_into
from relaygw.store.operating import in_batches
from relaygw.store.tables import captured_tag, message

_T = captured_tag.c
_INSERT = insert_into("captured_tag", "queue_id", "tag", "tag_key")


def tags(connection: Connection) -> dict[str, int]:
    """Return the tags in use with the number of their messages, in alphabetical order."""
    counted = select(func.min(_T.tag), func.count()).group_by(_T.tag_key).order_by(_T.tag_key)
    return {row[0]: row[1] for row in connection.execute(counted)}


def tags_of(connection: Connection, queue_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the tags of messages that have any, in alphabetical order."""
    found: dict[str, tuple[str, ...]] = {}
    for batch in in_batches(queue_ids):
        rows = select(_T.queue_id, _T.tag).where(_T.queue_id.in_(batch)).order_by(_T.tag_key)
        for queue_id, tag in connection.execute(rows):
            found[queue_id] = (*found.get(queue_id, ()), tag)
    return found


def spellings(connection: Connection, wanted: Sequence[str]) -> dict[str, str]:
    """Return tags by their key, in the spelling that is in use, else as given."""
    given: dict[str, str] = {}
    for tag in wanted:
        given.setdefault(tag_key(tag), " ".join(tag.split()))
    given.pop("", None)
    in_use = select(_T.tag_key, func.min(_T.tag)).where(_T.tag_key.in_(given)).group_by(_T.tag_key)
    return given | {row[0]: row[1] for row in connection.execute(in_use)}


def set_tags(connection: Connection, queue_ids: Sequence[str], tags: Mapping[str, str]) -> None:
    """Give captured messages exactly these tags, by their key."""
    captured = connection.execute(
        select(message.c.queue_id)
        .where(message.c.queue_id.in_(queue_ids), message.c.captured_at_ms.is_not(None))
        .order_by(message.c.queue_id)
        .with_for_update(read=True)
    ).scalars()
    rows = [(one, tag, key) for one in captured for key, tag in tags.items()]
    connection.execute(delete(captured_tag).where(_T.queue_id.in_(queue_ids)))
    _INSERT.run(connection, rows)


def having(connection: Connection, tag: str) -> list[str]:
    """Return the messages with a tag."""
    return list(connection.execute(select(_T.queue_id).where(_T.tag_key == tag_key(tag))).scalars())


def rename(connection: Connection, queue_ids: Sequence[str], old: str, new: str) -> None:
    """Rename a tag at these messages, where it may be one with another that they have."""
    old_key, new_key = tag_key(old), tag_key(new)
    spelled = " ".join(new.split())
    if old_key != new_key:
        spelled = spellings(connection, [new])[new_key]
    here = _T.queue_id.in_(queue_ids)
    if old_key != new_key:
        having_both = select(_T.queue_id).where(here, _T.tag_key == new_key)
        connection.execute(
            delete(captured_tag).where(
                here, _T.tag_key == old_key, _T.queue_id.in_(having_both.scalar_subquery())
            )
        )
    connection.execute(
        update(captured_tag)
        .where(here, _T.tag_key.in_((old_key, new_key)))
        .values(tag=spelled, tag_key=new_key)
    )


def remove(connection: Connection, queue_ids: Sequence[str], tag: str) -> None:
    """Take a tag off messages."""
    connection.execute(
        delete(captured_tag).where(_T.queue_id.in_(queue_ids), _T.tag_key == tag_key(tag))
    )
