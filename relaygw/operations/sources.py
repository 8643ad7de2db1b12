"""Who sends what: classes of mail, and rows by what they have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from relaygw.mail.clock import rfc3339
from relaygw.mail.mail_class import MailClass
from relaygw.mail.words import fields
from relaygw.store.sources import SourceSum
from relaygw.store.store import Store

BY = {
    **{"script": "script", "host": "host", "subject": "template", "sender": "sender_domain"},
    **{"uid": "uid", "user": "user"},
}
"""What classes are counted by, and what that is of a class; by nothing is each for itself."""
_CLASSES_AT_ONCE = 500
_PARTS = {  # of a class, as JSON names them
    **{"class": "class_id", "source": "source_id", "host": "host", "listener": "listener"},
    **{"user": "user", "uid": "uid", "script": "script", "sender_domain": "sender_domain"},
    **{"template": "template", "stream": "stream"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRow:
    """Mail that is counted together."""

    counted: SourceSum
    mail_class: MailClass | None  # None: of several, which have the key in common


def source_rows(
    store: Store, *, by: str | None, since_ms: int, limit: int
) -> tuple[list[SourceRow], int]:
    """Return the rows with most of the mail since the hour of a time, and how many there are."""
    found = store.sources.sum_mail("class_id" if by is None else BY[by], since_ms)
    shown = found[:limit]
    if by is not None:
        return [SourceRow(counted=total, mail_class=None) for total in shown], len(found)
    rows: list[SourceRow] = []
    for start in range(0, len(shown), _CLASSES_AT_ONCE):
        part = {str(total.key): total for total in shown[start : start + _CLASSES_AT_ONCE]}
        known = store.sources.known_classes(class_ids=part.keys())
        classes = {seen.mail_class.class_id: seen.mail_class for seen in known}
        # what was forgotten meanwhile is left out
        rows += [
            SourceRow(counted=total, mail_class=classes[key])
            for key, total in part.items()
            if key in classes
        ]
    return rows, len(found)


def source_object(row: SourceRow, *, by: str | None) -> dict[str, Any]:
    """Return a row for JSON; what its classes may not have in common is null."""
    mail_class, counted = row.mail_class, row.counted
    if mail_class is not None:
        parts = {name: getattr(mail_class, attribute) for name, attribute in _PARTS.items()}
    else:
        parts = {**dict.fromkeys(_PARTS), BY[by or ""]: counted.key}
    return {
        **parts,
        **fields(counted, "classes", "messages", "recipients", "refused", "busiest_hour", "total"),
        "first_seen": rfc3339(counted.first_seen_ms),
        "last_seen": rfc3339(counted.last_seen_ms),
    }
