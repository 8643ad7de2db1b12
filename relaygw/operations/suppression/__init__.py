"""Suppressed addresses in the hands of operators: shown, and whole lists of them.

A list goes into the queue batch by batch, and out of it row by row.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from itertools import islice
from typing import Any

from relaygw.mail.clock import DAY_MS, rfc3339, rfc3339_or_none, utc_text
from relaygw.mail.suppression import Suppression
from relaygw.mail.words import fields
from relaygw.operations.suppression.forms import POSTFIX, WRITTEN, written_address
from relaygw.operations.suppression.reading import BadLine, Reading
from relaygw.store.audit import AuditEntry
from relaygw.store.store import Store
from relaygw.store.suppression_list import EVERY, SuppressionFilter, every_suppression

IMPORT = "suppression.import"


def suppression_object(suppression: Suppression) -> dict[str, Any]:
    """Return a suppression; `--json` and the API have the same names of fields."""
    return {
        "address": suppression.address,
        "sender_domain": suppression.sender_domain or None,
        "stream": suppression.stream or None,
        "reason": suppression.cause.value,
        **fields(suppression, "source", "detail", "queue_id"),
        "created_at": rfc3339(suppression.created_at_ms),
        "expires_at": rfc3339_or_none(suppression.expires_at_ms),
    }


_SOON_MS = 2 * DAY_MS  # what ends within it is shown with its time


def row_words(suppression: Suppression, now_ms: int) -> str:
    """Return a suppression on a line: whose mail it is about, why, and until when."""
    whose = suppression.sender_domain or "any sender"
    scope = f"{whose}, {suppression.stream}" if suppression.stream else whose
    until = until_words(suppression, now_ms)
    return f"{suppression.address}  ({scope})  {suppression.words}{until}"


def until_words(suppression: Suppression, now_ms: int) -> str:
    """Return the end of a suppression, to continue a line; "" if it has none."""
    at_ms = suppression.expires_at_ms
    if at_ms is None:
        return ""
    is_soon = abs(at_ms - now_ms) < _SOON_MS
    return f"; until {utc_text(at_ms) if is_soon else utc_text(at_ms, '%Y-%m-%d')}"


def batched(entries: Iterable[Suppression], size: int) -> Iterator[list[Suppression]]:
    """Yield entries, as many as one transaction takes."""
    left = iter(entries)
    while batch := list(islice(left, size)):
        yield batch


# --- import --------------------------------------------------------------------------------

BATCH = 1000


@dataclass(slots=True)
class Imported:
    """What came of an import; `errors` are those that were told."""

    form: str
    read: int = 0
    added: int = 0  # or changed
    known: int = 0
    expired: int = 0
    errors: int = 0
    is_dry_run: bool = field(default=False, kw_only=True)


def import_list(
    store: Store,
    reading: Reading,
    *,
    name: str,
    actor: str,
    now_ms: int,
    is_dry_run: bool = False,
    tell: Callable[[BadLine], None],
    progress: Callable[[int], None] = lambda _number: None,
) -> Imported:
    """Add what a file names, batch by batch; what was added stays when a later batch fails.

    The first line of the audit trail comes with the first batch, the one with the sum at the end.
    Raises StoreUnavailable.
    """
    done = Imported(reading.form, is_dry_run=is_dry_run)
    audit = AuditEntry(at_ms=now_ms, actor=actor, action=IMPORT, target=name, affected=0, detail="")
    for batch in batched(_in_force(reading, done, now_ms=now_ms, tell=tell), BATCH):
        new = _would_change(store, batch) if is_dry_run else _add(store, batch, done, audit)
        done.added += new
        done.known += len(batch) - new
        progress(done.read)
    if done.added + done.known and not is_dry_run:
        store.suppressions.tell_planner()
        detail = f"{done.added:,} addresses, form {done.form}"
        store.audit.add(replace(audit, affected=done.added, detail=detail))
    return done


def _in_force(
    reading: Reading, done: Imported, *, now_ms: int, tell: Callable[[BadLine], None]
) -> Iterator[Suppression]:
    """Yield what has not expired, and count in `done`."""
    for found in reading.found:
        if isinstance(found, BadLine):
            done.errors += 1
            tell(found)
            continue
        done.read += 1
        if found.is_over(now_ms):
            done.expired += 1
        else:
            yield found


def _add(store: Store, batch: Sequence[Suppression], done: Imported, audit: AuditEntry) -> int:
    """Add a batch; a list that doubles is told to the planner of the database."""
    is_first = not done.added + done.known
    begun = replace(audit, detail=f"begun, form {done.form}") if is_first else None
    new = store.suppressions.suppress_batch(batch, entry=begun)
    if done.added.bit_length() < (done.added + new).bit_length():
        store.suppressions.tell_planner()
    return new


def _would_change(store: Store, batch: Sequence[Suppression]) -> int:
    known = store.suppressions.suppressed_of([suppression.address for suppression in batch])
    keys = {entry.key for entries in known.values() for entry in entries}
    return len({suppression.key for suppression in batch} - keys)


# --- export -------------------------------------------------------------------------------


@dataclass(slots=True)
class Exported:
    """How many were written, and how many the form cannot say."""

    written: int = 0
    left_out: int = 0


def export_list(
    store: Store, form: str, wanted: SuppressionFilter = EVERY, *, done: Exported
) -> Iterator[str]:
    """Yield a list row by row, newest first, and count in `done`. Raises StoreUnavailable."""
    yield from written(every_suppression(store.suppressions, wanted), form, done)


def written(entries: Iterable[Suppression], form: str, done: Exported) -> Iterator[str]:
    """Yield rows of a form, with its heading; addresses that it cannot hold are left out."""
    chosen = WRITTEN[form]
    if chosen.heading:
        yield _csv(chosen.heading)
    for entry in entries:
        address = written_address(entry.address)
        if entry.cause not in chosen.says or (chosen is POSTFIX and re.search(r'[\s"]', address)):
            done.left_out += 1
            continue
        done.written += 1
        rest = chosen.write(entry)
        yield f"{address} {rest[0]}\n" if chosen is POSTFIX else _csv((address, *rest))


def _csv(row: Iterable[str]) -> str:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()
