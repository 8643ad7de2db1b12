"""What changed of a list between two looks, and the event that tells an open page of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from relaygw.store.captured import CapturedEntry
from relaygw.web import words
from relaygw.web.page import render_text
from relaygw.web.sandbox.inbox import PAGE_ROWS
from relaygw.web.sandbox.rows import make_row


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The newest messages that a search finds, and how many there are."""

    entries: tuple[CapturedEntry, ...] = ()
    found: tuple[int, int] = (0, 0)  # and how many of them are unread
    all: tuple[int, int] = (0, 0)

    @property
    def newest(self) -> str:
        """The id of the first message, "" without one."""
        return self.entries[0].entry.queue_id if self.entries else ""


@dataclass(frozen=True, slots=True)
class Change:
    """What to do to a list."""

    new: tuple[CapturedEntry, ...] = ()  # newest first
    gone: tuple[str, ...] = ()
    read: dict[str, bool] = field(default_factory=dict)
    is_too_much: bool = False  # load the list again


def state_of(snapshot: Snapshot) -> tuple[Any, ...]:
    """Return what an open page would be told of if it changed."""
    return snapshot.all, snapshot.found, _read_states(snapshot)


def _read_states(snapshot: Snapshot) -> dict[str, bool]:
    return {one.entry.queue_id: one.entry.read_at_ms is not None for one in snapshot.entries}


def since(last: str, snapshot: Snapshot) -> Change:
    """Return what is newer than the last message that a page shows."""
    new = tuple(one for one in snapshot.entries if one.entry.queue_id > last)
    return Change(new=new, is_too_much=len(new) == PAGE_ROWS)


def difference(old: Snapshot, new: Snapshot) -> Change:
    """Return what happened between two looks at one search."""
    before, now = _read_states(old), _read_states(new)
    # what a full list does not show any more may only have been pushed down
    is_full = len(new.entries) == PAGE_ROWS
    oldest = new.entries[-1].entry.queue_id if is_full else ""
    added = tuple(one for one in new.entries if one.entry.queue_id not in before)
    return Change(
        new=added,  # or older, moved up because others went: a page puts them in order
        gone=tuple(one for one in before if one not in now and one >= oldest),
        read={one: state for one, state in now.items() if before.get(one, state) != state},
        is_too_much=len(added) == PAGE_ROWS,
    )


def event_text(change: Change, snapshot: Snapshot, *, query: str, root_path: str) -> str:
    """Return a change as a server-sent event (HTML standard, 9.2); its id is the newest mail."""
    now = words.now_ms()
    rows = [
        {
            "id": one.entry.queue_id,
            "html": render_text(root_path, "row.html", {"row": make_row(one, query, now=now)}),
        }
        for one in (() if change.is_too_much else change.new)
    ]
    told = {
        "total": snapshot.all[0],
        "unread": snapshot.all[1],
        "found": snapshot.found[0],
        "found_unread": snapshot.found[1],
        "rows": rows,
        "gone": change.gone,
        "read": change.read,
        "reload": change.is_too_much,
    }
    return f"event: change\nid: {snapshot.newest}\ndata: {json.dumps(told)}\n\n"
