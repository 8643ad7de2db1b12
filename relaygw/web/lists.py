"""What lists share: filters, which messages are chosen, and where a page ends.

A form is about what was ticked, or found when somebody looked: nothing unseen is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

from starlette.datastructures import FormData

from relaygw.mail.state import DeliveryState
from relaygw.web.context import WebContext, is_queue_id

PAGE_ROWS = 50
_MAX_TICKED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A filter beside a list."""

    label: str
    path: str
    is_on: bool
    number: int | None = None  # of messages, None: not counted
    is_live: bool = False  # an open page counts it further


class Listing(Protocol):
    """What a list was asked for."""

    place: ClassVar[str]  # the path of the list
    box: ClassVar[str]  # the name of the boxes in its forms
    end: ClassVar[str]  # the name of the field that tells when somebody looked

    @property
    def words(self) -> str:
        """It in words, for the audit trail."""

    def pairs(self) -> list[tuple[str, str]]:
        """Return it as fields of a form."""

    def back(self, form: FormData) -> str:
        """Return the path of the page of the list that a form came from."""

    def batches(
        self, web: WebContext, until: str, states: frozenset[DeliveryState]
    ) -> Iterator[Sequence[str]]:
        """Yield the ids of what there was when somebody looked, of queued mail in `states`."""


L = TypeVar("L", bound=Listing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Generic[L]):
    """Ticked messages, or all that a list found until somebody looked."""

    listing: L
    ids: tuple[str, ...] = ()
    until: str = ""  # "": only what was ticked

    @property
    def is_all(self) -> bool:
        """True for all that was found."""
        return bool(self.until)

    @property
    def is_empty(self) -> bool:
        """True when nothing was ticked and not all are meant."""
        return not self.ids and not self.until

    def words(self) -> str:
        """Return the choice in words, for the audit trail."""
        return f"web, {self.listing.words}" if self.until else "web"

    def fields(self) -> list[tuple[str, str]]:
        """Return the hidden fields by which a form hands on the choice."""
        fields = [(self.listing.box, queue_id) for queue_id in self.ids]
        if self.until:
            fields = [("scope", "found"), (self.listing.end, self.until)]
        return fields + self.listing.pairs()

    def back_path(self, form: FormData) -> str:
        """Return where a form came from: the page of a message, else that of the list."""
        if form.get("back") == "message" and len(self.ids) == 1:
            return f"{self.listing.place}/{self.ids[0]}"
        return self.listing.back(form)

    def batches(
        self, web: WebContext, states: frozenset[DeliveryState] = frozenset()
    ) -> Iterator[Sequence[str]]:
        """Yield the ids, some at a time; of all that was found, only those in `states`."""
        if self.until:
            yield from self.listing.batches(web, self.until, states)
        else:
            yield self.ids  # none, if nothing was ticked


def means_all(form: FormData) -> bool:
    """True for a form that is about all that was found, whatever is ticked."""
    return "all" in form or form.get("scope") == "found"


def ticked_ids(form: FormData, box: str) -> tuple[str, ...]:
    """Return the ids of the messages that were ticked, each once."""
    given = [] if means_all(form) else [str(value) for value in form.getlist(box)]
    return tuple(dict.fromkeys(word for word in given if is_queue_id(word)))[:_MAX_TICKED]


def action_of(form: FormData) -> str:
    """Return the name of the action that a form asks for."""
    return str(form.get("all") or form.get("action", ""))
