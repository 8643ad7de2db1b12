"""What messages are selected by: the table of selectors, and the search that their values make.

The options of the command line, the fields of the pages and the parameters of the API come from
here. Who reads values refuses an empty one: it is never "any".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from relaygw.mail.state import DeliveryState
from relaygw.store.selection import Selection

ANY_STATE = frozenset(DeliveryState)
ALL = "all"
"""Stands among the states for all of them."""
STATES = (*(state.value for state in DeliveryState), ALL)
NULL_SENDER = "<>"
"""Stands for a sender that is empty; no part of a text selects it."""


class Kind(StrEnum):
    """How a value is read, and compared."""

    PART = "part"  # a text, found anywhere, in any case
    WHOLE = "whole"  # a text, compared whole
    STATE = "state"  # one of STATES; may be repeated
    AGE = "age"
    ID = "id"  # may be repeated


@dataclass(frozen=True, slots=True)
class Selector:
    """Something that messages are selected by."""

    name: str
    kind: Kind
    help: str
    label: str = ""  # of the field of a page; none: it has no plain field
    example: str = ""

    @property
    def is_text(self) -> bool:
        """True for a value that is taken as it is."""
        return self.kind in (Kind.PART, Kind.WHOLE)

    @property
    def is_repeated(self) -> bool:
        """True where several values may be given."""
        return self.kind in (Kind.STATE, Kind.ID)


_K = Kind
_ROWS = (
    Selector("id", _K.ID, "Queue id; may be repeated."),
    Selector(
        "sender", _K.PART, "Envelope sender contains TEXT; <> is the null sender.",
        label="Sender contains", example="shop@example.com, or <>",
    ),
    Selector("recipient", _K.PART, "A recipient contains TEXT.", label="A recipient contains"),
    Selector("subject", _K.PART, "Subject contains TEXT.", label="Subject contains"),
    Selector("state", _K.STATE, "State of a delivery; may be repeated."),
    Selector(
        "provider", _K.WHOLE, "Last provider tried is exactly TEXT.", label="Provider tried last is"
    ),
    Selector("route", _K.WHOLE, "Route is exactly TEXT.", label="Route is"),
    Selector("stream", _K.WHOLE, "Stream is exactly TEXT.", label="Stream is"),
    Selector(
        "client", _K.WHOLE, "Client address or user is exactly TEXT.", label="Client or user is"
    ),
    Selector(
        "older_than", _K.AGE, "Accepted longer ago than AGE: 30s, 5m, 4h, 7d.",
        label="Older than", example="30m, 4h, 7d",
    ),
    Selector(
        "reason", _K.PART, "Reason of a delay or hold contains TEXT.",
        label="Reason contains", example="timed out",
    ),
    Selector(
        "reply", _K.PART, "What was last said to a recipient contains TEXT.",
        label="Last reply contains",
    ),
)  # fmt: skip
SELECTORS = {one.name: one for one in _ROWS}
"""By name, in the order of the command line's help."""


def selection_of(
    values: Mapping[str, Any], *, default_states: frozenset[DeliveryState], now_ms: int
) -> Selection:
    """Return the search for what all of these values select.

    By name: texts; `id` and `state` are sequences, `older_than` is in seconds. With ids every
    state is meant unless some are given, else `default_states`.
    """
    texts = {
        name: values[name] for name, one in SELECTORS.items() if one.is_text and name in values
    }
    if texts.get("sender") == NULL_SENDER:
        del texts["sender"]
    states = values.get("state", ())
    if ALL in states or ("id" in values and not states):
        found = ANY_STATE
    else:
        found = frozenset(map(DeliveryState, states)) or default_states
    older_than_s = values.get("older_than")
    return Selection(
        queue_ids=tuple(values.get("id", ())),
        states=found,
        accepted_before_ms=None if older_than_s is None else now_ms - int(older_than_s * 1000),
        **texts,
    )
