"""What the lists of the queue and of captured mail share: lines, filters, boxes to tick.

A form around a list is about what was ticked, or about all that was found when somebody looked,
so that nothing is changed that nobody has seen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from starlette.datastructures import FormData

from relaygw.store.queue_entry import QueueEntry
from relaygw.web import words
from relaygw.web.context import is_queue_id

PAGE_ROWS = 50
MAX_TICKED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A filter beside a list."""

    label: str
    path: str
    is_on: bool
    number: int | None = None  # of messages, None: not counted
    is_live: bool = False  # an open page counts it further


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(ABC):
    """Ticked messages, or all that a list found."""

    box: ClassVar[str]
    """The name of the boxes in its forms."""
    place: ClassVar[str]
    """The path of the list."""

    ids: tuple[str, ...]

    @property
    @abstractmethod
    def is_all(self) -> bool:
        """True for all that was found."""

    @property
    @abstractmethod
    def found(self) -> str:
        """All that was found, in words for the audit trail."""

    @abstractmethod
    def list_fields(self) -> list[tuple[str, str]]:
        """Return the fields of a form that tell what the list shows, and when it was looked at."""

    @abstractmethod
    def list_path(self, form: FormData) -> str:
        """Return the path of the page of the list that a form came from."""

    @property
    def is_empty(self) -> bool:
        """True when nothing was ticked and not all are meant."""
        return not self.ids and not self.is_all

    def words(self) -> str:
        """Return what was chosen, for the audit trail."""
        return f"web, {self.found}" if self.is_all else "web"

    def fields(self) -> list[tuple[str, str]]:
        """Return the hidden fields by which a form hands on the choice."""
        ids = [(self.box, queue_id) for queue_id in self.ids]
        return [*([("scope", "found")] if self.is_all else ids), *self.list_fields()]

    def back_path(self, form: FormData) -> str:
        """Return where a form came from: the page of a message, else that of the list."""
        if form.get("back") == "message" and len(self.ids) == 1:
            return f"{self.place}/{self.ids[0]}"
        return self.list_path(form)


def means_all(form: FormData) -> bool:
    """True for a form that is about all that was found, whatever is ticked."""
    return "all" in form or form.get("scope") == "found"


def ticked_ids(form: FormData, box: str) -> tuple[str, ...]:
    """Return the ids of the messages that were ticked, each once."""
    given = [] if means_all(form) else [str(value) for value in form.getlist(box)]
    return tuple(dict.fromkeys(one for one in given if is_queue_id(one)))[:MAX_TICKED]


def action_of(form: FormData) -> str:
    """Return the name of the action that a form asks for."""
    return str(form.get("all") or form.get("action", ""))


def line_of(entry: QueueEntry, at_ms: int, now: int) -> dict[str, Any]:
    """Return what a line says of any message, with the time that lists are ordered by."""
    return {
        "queue_id": entry.queue_id,
        "subject": entry.subject or "(no subject)",
        "size": words.size(entry.size_bytes),
        **words.moment(at_ms, now),
    }
