"""The options that choose messages, and the messages they choose.

A condition without a value is an error, never "any": an unset variable in a script must not
turn `queue delete --sender "$WHO"` into a deletion of everything.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import click

from relaygw.cli.text import clock_ms
from relaygw.cli.values import number_from_1
from relaygw.mail.state import OPEN, DeliveryState
from relaygw.store.protocol import MAX_TEXT_CHARACTERS, QueueEntry, Selection, Store

PAGE_MESSAGES = 500
MAX_IDS = 100_000
"""Ids of one search: a few MB."""
ANY_STATE = frozenset(DeliveryState)
NULL_SENDER = "<>"
STDIN = "-"
_STATE_MARKS = "*!#"  # beside the ids in what mailq prints
_ID_NAMES = ("queue_ids", "id_options")

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def not_empty(_ctx: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """Refuse a text that is empty, or too long to be looked for."""
    if value is not None and not value.strip():
        raise click.BadParameter("is empty; write a value or leave the option out")
    if value is not None and len(value) > MAX_TEXT_CHARACTERS:
        raise click.BadParameter(
            f"it has {len(value):,} characters; write at most {MAX_TEXT_CHARACTERS:,}"
        )
    return value


def _not_empty_ids(
    _ctx: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    if not all(value.strip() for value in values):
        raise click.BadParameter("an id is empty; write a queue id or leave it out")
    return tuple(value.strip().upper() for value in values)


def take_duration(_ctx: click.Context, _option: click.Parameter, value: str | None) -> float | None:
    """Turn the value of an option into seconds."""
    from relaygw.settings.units import parse_duration

    if value is None:
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} {error}") from error


def _text_option(name: str, explanation: str) -> Decorator:
    return click.option(f"--{name}", metavar="TEXT", callback=not_empty, help=explanation)


ids_argument = click.argument("queue_ids", metavar="[ID]...", nargs=-1, callback=_not_empty_ids)
some_ids_argument = click.argument(
    "queue_ids", metavar="ID...", nargs=-1, required=True, callback=_not_empty_ids
)
_ID = click.option(
    "--id", "id_options", metavar="ID", multiple=True, callback=_not_empty_ids,
    help="Queue id; may be repeated.",
)  # fmt: skip
_SENDER = _text_option("sender", "Envelope sender contains TEXT; <> is the null sender.")
_RECIPIENT = _text_option("recipient", "A recipient contains TEXT.")
_SUBJECT = _text_option("subject", "Subject contains TEXT.")
_OLDER_THAN = click.option(
    "--older-than", "older_than_s", metavar="AGE", callback=take_duration,
    help="Accepted longer ago than AGE: 30s, 5m, 4h, 7d.",
)  # fmt: skip
_LIMIT = click.option("--limit", metavar="N", type=number_from_1(), help="At most N messages.")

search_option = _text_option("search", "Matches TEXT, written as in the sandbox's search box.")
CAPTURED_OPTIONS = (
    _ID,
    search_option,
    _SENDER,
    _RECIPIENT,
    _SUBJECT,
    _OLDER_THAN,
    _LIMIT,
)
QUEUE_OPTIONS = (
    _ID,
    _SENDER,
    _RECIPIENT,
    _SUBJECT,
    click.option(
        "--state",
        "state_names",
        multiple=True,
        type=click.Choice([*(state.value for state in DeliveryState), "all"]),
        help="State of a delivery; may be repeated.",
    ),
    _text_option("provider", "Last provider tried is exactly TEXT."),
    _text_option("route", "Route is exactly TEXT."),
    _text_option("stream", "Stream is exactly TEXT."),
    _text_option("client", "Client address or user is exactly TEXT."),
    _OLDER_THAN,
    _text_option("reason", "Reason of a delay or hold contains TEXT."),
    _text_option("reply", "What was last said to a recipient contains TEXT."),
    _LIMIT,
)


def options(chosen: Iterable[Decorator]) -> Decorator:
    """Return a decorator that adds several options in their order."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(tuple(chosen)):
            function = option(function)
        return function

    return decorate


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the options of one call ask for."""

    selection: Selection
    search: str = ""  # of captured mail, in the words of mail.search
    is_null_sender: bool = False
    has_ids: bool = False  # True with no id at all means no message
    has_conditions: bool = False  # False: nothing was asked for, so everything would match
    limit: int | None = None
    words: str = ""  # the conditions without the ids, for the audit trail


def choose(given: dict[str, Any], *, default_states: frozenset[DeliveryState] = OPEN) -> Choice:
    """Turn the values of the options, and of the arguments `queue_ids`, into a Choice.

    With ids every state matches unless one is asked for.
    """
    conditions = {name: value for name, value in given.items() if value not in (None, ())}
    limit = conditions.pop("limit", None)
    ids, has_ids = _read_ids((*conditions.get("queue_ids", ()), *conditions.get("id_options", ())))
    sender = conditions.get("sender")
    older_than_s = conditions.get("older_than_s")
    return Choice(
        selection=Selection(
            queue_ids=ids,
            sender=None if sender == NULL_SENDER else sender,
            recipient=conditions.get("recipient"),
            subject=conditions.get("subject"),
            states=_states(conditions.get("state_names", ()), default_states, has_ids=has_ids),
            provider=conditions.get("provider"),
            route=conditions.get("route"),
            stream=conditions.get("stream"),
            client=conditions.get("client"),
            accepted_before_ms=(
                None if older_than_s is None else clock_ms() - int(older_than_s * 1000)
            ),
            reason=conditions.get("reason"),
            reply=conditions.get("reply"),
        ),
        search=conditions.get("search", ""),
        is_null_sender=sender == NULL_SENDER,
        has_ids=has_ids,
        has_conditions=has_ids or bool(conditions),
        limit=limit,
        words=_words(conditions),
    )


def _words(conditions: dict[str, Any]) -> str:
    named = {name: value for name, value in conditions.items() if name not in _ID_NAMES}
    return " ".join(f"{name}={value!r}" for name, value in named.items())


def _states(
    names: tuple[str, ...], default: frozenset[DeliveryState], *, has_ids: bool
) -> frozenset[DeliveryState]:
    if "all" in names:
        return ANY_STATE
    if names:
        return frozenset(DeliveryState(name) for name in names)
    return ANY_STATE if has_ids else default


def _read_ids(given: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    """Return the ids, those on stdin for `-`, and whether any were asked for."""
    ids: list[str] = []
    for word in given:
        if word == STDIN:
            ids += [
                line.split()[0].rstrip(_STATE_MARKS).upper() for line in sys.stdin if line.strip()
            ]
        else:
            ids.append(word)
    return tuple(dict.fromkeys(ids)), bool(given)


def found(store: Store, choice: Choice) -> Iterator[QueueEntry]:
    """Yield the chosen messages in the order of acceptance, page by page."""
    return islice(_matching(store, choice), choice.limit)


def _matching(store: Store, choice: Choice) -> Iterator[QueueEntry]:
    ids = choice.selection.queue_ids
    if not choice.has_ids:
        selections = [choice.selection]
    else:
        pages = [ids[at : at + PAGE_MESSAGES] for at in range(0, len(ids), PAGE_MESSAGES)]
        selections = [replace(choice.selection, queue_ids=page) for page in pages]
    limit = MAX_IDS if choice.limit is None or choice.is_null_sender else choice.limit
    for selection in selections:
        for page in _pages(store, selection, min(limit, MAX_IDS)):
            for entry in store.entries(page):
                # it may be in another state since its id was found
                is_still = any(part.state in selection.states for part in entry.deliveries)
                if is_still and not (choice.is_null_sender and entry.sender):
                    yield entry


def _pages(store: Store, selection: Selection, limit: int) -> Iterator[list[str]]:
    """Yield the ids that match; many are found at once, since a search looks at the whole queue."""
    after = ""
    while True:
        ids = store.search_ids(selection, limit=limit, after=after)
        for start in range(0, len(ids), PAGE_MESSAGES):
            yield ids[start : start + PAGE_MESSAGES]
        if len(ids) < limit:
            return
        after = ids[-1]
