"""Suppressed addresses in the hands of operators: added, lifted and shown, and whole lists of them.

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

from relaygw.mail.clock import rfc3339, rfc3339_or_none
from relaygw.mail.suppression import ANY, STREAMS, Action, Suppression, SuppressionRules
from relaygw.mail.words import fields
from relaygw.operations.suppression.forms import POSTFIX, WRITTEN, written_address
from relaygw.operations.suppression.reading import BadLine, Reading
from relaygw.store.audit import AuditEntry
from relaygw.store.store import Store
from relaygw.store.suppression_list import EVERY, SuppressionFilter, every_suppression

ADD, REMOVE, IMPORT = "suppression.add", "suppression.remove", "suppression.import"


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


_DOES = {
    Action.OFF: "is sent",
    Action.WARN: "is sent with a warning",
    Action.BLOCK: "is not sent",
}


def effect(suppression: Suppression, rules: SuppressionRules) -> str:
    """Return the fate of mail for an address from now on, in a sentence."""
    whose = f"mail of {suppression.sender_domain}" if suppression.sender_domain else "all mail"
    told = [
        f"{stream} mail {_DOES[rules.action(suppression, stream)]}"
        for stream in STREAMS
        if suppression.stream in (ANY, stream)
    ]
    return f"{whose}: {', '.join(told)}"


def suppress(
    store: Store, entries: Sequence[Suppression], *, actor: str, now_ms: int, way: str = ""
) -> None:
    """Suppress addresses, whatever was known of them; audited. Raises StoreUnavailable."""
    for step in _batches(entries, _STEP):
        entry = _audit(ADD, step, actor=actor, now_ms=now_ms, way=way)
        store.suppressions.suppress(step, entry=entry)


def lift(
    store: Store, entries: Sequence[Suppression], *, actor: str, now_ms: int, way: str = ""
) -> None:
    """Lift suppressions; audited. Raises StoreUnavailable."""
    for step in _batches(entries, _STEP):
        entry = _audit(REMOVE, step, actor=actor, now_ms=now_ms, way=way)
        store.suppressions.lift([suppression.key for suppression in step], entry=entry)


def lift_of(
    store: Store,
    addresses: Sequence[str],
    *,
    sender_domain: str | None,
    stream: str | None,
    actor: str,
    now_ms: int,
    way: str = "",
    is_dry_run: bool,
) -> list[Suppression]:
    """Lift what is in force of addresses, and return it; None: for any sender, any stream.

    Audited. Raises StoreUnavailable.
    """
    known = store.suppressions.suppressed_of(addresses)
    found = [
        entry
        for entries in known.values()
        for entry in entries
        if sender_domain in (None, entry.sender_domain) and stream in (None, entry.stream)
    ]
    if not is_dry_run:
        lift(store, found, actor=actor, now_ms=now_ms, way=way)
    return found


_STEP = 500
_SHOWN = 5


def _batches(entries: Iterable[Suppression], size: int) -> Iterator[list[Suppression]]:
    left = iter(entries)
    while batch := list(islice(left, size)):
        yield batch


def _audit(
    action: str, entries: Sequence[Suppression], *, actor: str, now_ms: int, way: str
) -> AuditEntry:
    shown = [entry.address for entry in entries[:_SHOWN]]
    more = f" and {len(entries) - len(shown)} more" if len(entries) > len(shown) else ""
    scopes = {f"{entry.sender_domain or 'any sender'} {entry.stream}".strip() for entry in entries}
    detail = f"for {', '.join(sorted(scopes)[:_SHOWN])}"
    return AuditEntry(
        at_ms=now_ms,
        actor=actor,
        action=action,
        target=", ".join(shown) + more,
        affected=len(entries),
        detail="; ".join(filter(None, [detail, way])),
    )


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
    for batch in _batches(_in_force(reading, done, now_ms=now_ms, tell=tell), BATCH):
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
