"""The options that choose messages, queued or captured, and the messages they choose.

A condition without a value is an error, never "any": an unset variable in a script must not
turn `queue delete --sender "$WHO"` into a deletion of everything.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import click

from relaygw.cli.frame import NUMBER_FROM_1, CommandFailed, Text
from relaygw.cli.text import cut
from relaygw.mail.clock import clock_ms
from relaygw.mail.search import parse_search
from relaygw.mail.state import OPEN, DeliveryState
from relaygw.operations import selectors
from relaygw.operations.queue_actions import MAX_IDS, found_batches
from relaygw.operations.readers import read_line
from relaygw.settings.section import parse_duration
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.selection import MAX_TEXT_CHARACTERS, Selection
from relaygw.store.store import Store
from relaygw.web.indexing import Indexer

PAGE_MESSAGES = 500
STDIN = "-"
LATEST = "LATEST"
"""The id that stands for the newest captured message; ids are in upper case by then."""
_MAX_ID_CELLS = 40
_STATE_MARKS = "*!#"  # beside the ids in what mailq prints

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _take_text(text: str) -> str:
    if not text.strip():
        raise click.BadParameter("is empty; write a value or omit the option")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise click.BadParameter(
            f"it has {len(text):,} characters; write at most {MAX_TEXT_CHARACTERS:,}"
        )
    return text


def _take_search(text: str) -> str:
    mistake = parse_search(_take_text(text)).mistake
    if mistake is not None:
        raise click.BadParameter(str(mistake))
    return text


def _take_id(text: str) -> str:
    if not text.strip():
        raise click.BadParameter("an id is empty; write a queue id or omit it")
    return text.strip().upper()


def _take_duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} {error}") from error


def _take_time(text: str) -> str:
    if selectors.read_moment(_take_text(text), now_ms=0) is None:
        raise click.BadParameter(f"{text[:40]!r} is not a time; write {selectors.TIMES}")
    return text.strip()


def _take_uid(text: str) -> int:
    uid = selectors.read_value("uid", text, now_ms=0)
    if not isinstance(uid, int):
        raise click.BadParameter(f"{text[:40]!r} is not a user ID; `id -u NAME` prints it")
    return uid


def _take_note(text: str) -> str:
    try:
        return read_line(text)
    except ValueError as error:
        raise CommandFailed(f"note {error}") from error


class _Choice(click.Choice[str]):
    """One of the words of a selector; a word of another one is named as such."""

    def __init__(self, name: str) -> None:
        super().__init__(selectors.CHOICES[name])
        self._name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the word; see click."""
        other = selectors.misplaced(self._name, value)
        if other:
            article = "an" if other[0] in "aeiou" else "a"
            said = f"{value!r} is {article} {other}, not a {self._name}"
            self.fail(f"{said}; write --{other} {shlex.quote(value)}")
        return super().convert(value, param, ctx)


NOT_EMPTY = Text(_take_text)
"""A text to look for."""
NOTE = Text(_take_note)
"""Why something is done."""
DURATION = Text(_take_duration)
"""In seconds."""
TIME = Text(_take_time)
"""As `read_moment` reads it."""
_ID = Text(_take_id)
ids_argument = click.argument("queue_ids", metavar="[ID]...", nargs=-1, type=_ID)
some_ids_argument = click.argument("queue_ids", metavar="ID...", nargs=-1, required=True, type=_ID)
_KINDS: dict[selectors.Kind, dict[str, Any]] = {
    selectors.Kind.PART: {"metavar": "TEXT", "type": NOT_EMPTY},
    selectors.Kind.WHOLE: {"metavar": "TEXT", "type": NOT_EMPTY},
    selectors.Kind.AGE: {"metavar": "AGE", "type": DURATION},
    selectors.Kind.TIME: {"metavar": "T", "type": TIME},
    selectors.Kind.NUMBER: {"metavar": "N", "type": Text(_take_uid)},
    selectors.Kind.ID: {"metavar": "ID", "multiple": True, "type": _ID},
}
_PARAMETERS = {
    **{"id": "id_options", "state": "state_names", "older_than": "older_than_s"},
    **{"result": "results", "attempt": "attempts"},
}
"""Where a parameter has another name than the selector; audit lines show it."""


def _option(selector: selectors.Selector) -> Decorator:
    names = (f"--{selector.name.replace('_', '-')}", _PARAMETERS.get(selector.name, selector.name))
    if selector.kind is selectors.Kind.CHOICE:
        more: dict[str, Any] = (
            {"metavar": "RESULT"} if selector.name == "result" else {}
        )  # see help
        return click.option(
            *names, help=selector.help, multiple=True, type=_Choice(selector.name), **more
        )
    return click.option(*names, help=selector.help, **_KINDS[selector.kind])


_LIMIT = click.option("--limit", metavar="N", type=NUMBER_FROM_1, help="List at most N messages.")
search_option = click.option(
    "--search", metavar="TEXT", type=Text(_take_search),
    help="Matches TEXT, in the syntax of the sandbox's search box.",
)  # fmt: skip
_ENDS = ("result", "attempt")  # of which all mail is looked at
QUEUE_OPTIONS: tuple[Decorator, ...] = (*map(_option, selectors.SELECTORS.values()), _LIMIT)
WAITING_OPTIONS: tuple[Decorator, ...] = (
    *(_option(selector) for selector in selectors.SELECTORS.values() if selector.name not in _ENDS),
    _LIMIT,
)
CAPTURED_OPTIONS: tuple[Decorator, ...] = (
    _option(selectors.SELECTORS["id"]),
    search_option,
    *(
        _option(selectors.SELECTORS[name])
        for name in ("sender", "recipient", "subject", "older_than")
    ),
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
    has_ids: bool = False  # True with no id at all means no message
    has_conditions: bool = False  # False: nothing was asked for, so everything would match
    limit: int | None = None
    newest_first: bool = False
    words: str = ""  # the conditions without the ids, for the audit trail

    def missing(self, found: Collection[str]) -> list[str]:
        """Return the ids asked for that are not among those found; none under a limit."""
        wanted = self.selection.queue_ids if self.limit is None else ()
        return [queue_id for queue_id in wanted if queue_id not in found]

    def pages(self) -> Iterator[Selection]:
        """Yield the searches to make: ids are looked for page by page."""
        ids = self.selection.queue_ids
        for start in range(0, len(ids), PAGE_MESSAGES):
            yield replace(self.selection, queue_ids=ids[start : start + PAGE_MESSAGES])
        if not self.has_ids:
            yield self.selection


def choose(given: dict[str, Any], *, default_states: frozenset[DeliveryState] = OPEN) -> Choice:
    """Turn the values of the options, and of the arguments `queue_ids`, into a Choice.

    With ids every state matches unless one is asked for.
    """
    conditions = {name: value for name, value in given.items() if value not in (None, ())}
    limit = conditions.pop("limit", None)
    words = (*conditions.pop("queue_ids", ()), *conditions.pop("id_options", ()))
    parameters = {name: _PARAMETERS.get(name, name) for name in selectors.SELECTORS}
    values = {name: conditions[key] for name, key in parameters.items() if key in conditions}
    if words:
        values["id"] = _read_ids(words)
    now_ms = clock_ms()
    for name in ("since", "until"):
        if name in values:
            values[name] = selectors.read_value(name, values[name], now_ms=now_ms)
    if "since" in values and "until" in values and values["since"] > values["until"]:
        said = f"--since {conditions['since']} is later than --until {conditions['until']}"
        raise click.UsageError(f"{said}; exchange them")
    return Choice(
        selection=selectors.selection_of(values, default_states=default_states, now_ms=now_ms),
        search=conditions.get("search", ""),
        has_ids=bool(words),
        has_conditions=bool(words or conditions),
        limit=limit,
        words=" ".join(f"{name}={value!r}" for name, value in conditions.items()),
    )


def _read_ids(given: Iterable[str]) -> tuple[str, ...]:
    """Return ids, each once; what is too long for one is of no message, and is told cut."""
    ids: list[str] = []
    for word in given:
        if word != STDIN:
            ids.append(word)
            continue
        lines = (line.split()[0] for line in sys.stdin if line.strip())
        ids += [queue_id.rstrip(_STATE_MARKS).upper() for queue_id in lines]
    return tuple(dict.fromkeys(cut(queue_id, _MAX_ID_CELLS) for queue_id in ids))


def in_order(choice: Choice, *, oldest_first: bool, newest_first: bool) -> Choice:
    """Return a choice in the order that somebody wants, else in the default."""
    if oldest_first and newest_first:
        raise click.UsageError(
            "--oldest-first and --newest-first cannot be used together; remove one"
        )
    usual = selectors.is_newest_first(choice.selection)
    return replace(choice, newest_first=not oldest_first and (newest_first or usual))


def found(store: Store, choice: Choice) -> Iterator[QueueEntry]:
    """Yield the chosen messages in the order of acceptance, or newest first, page by page."""
    return islice(_matching(store, choice), choice.limit)


def _matching(store: Store, choice: Choice) -> Iterator[QueueEntry]:
    limit, newest_first = min(choice.limit or MAX_IDS, MAX_IDS), choice.newest_first
    for selection in choice.pages():
        for page in found_batches(store, selection, limit=limit, newest_first=newest_first):
            entries = store.queue.entries(page)
            for entry in reversed(entries) if newest_first else entries:
                # it may be in another state since its id was found
                if any(part.state in selection.states for part in entry.deliveries):
                    yield entry


# --- captured messages ---------------------------------------------------------------------


def with_latest(store: Store, choice: Choice) -> Choice:
    """Return a choice with the newest captured message's id in the place of `latest`."""
    ids = choice.selection.queue_ids
    if LATEST not in ids:
        return choice
    newest = store.sandbox.captured_entry(None)
    found_id = newest.entry.queue_id if newest is not None else LATEST.lower()
    named = dict.fromkeys(found_id if word == LATEST else word for word in ids)
    return replace(choice, selection=replace(choice.selection, queue_ids=tuple(named)))


def chosen_captured(store: Store, choice: Choice) -> Iterator[QueueEntry]:
    """Yield the chosen messages: with ids whether captured or not, else captured ones.

    Captured ones come newest first. A search reads content that nobody has read yet before.
    """
    if choice.has_ids and not choice.search:
        return found(store, choice)
    return captured(store, choice)


def captured(store: Store, choice: Choice) -> Iterator[QueueEntry]:
    """Yield the chosen captured messages, the newest first."""
    if choice.search:
        Indexer(store).catch_up(within_s=None)
    ids = choice.selection.queue_ids
    entries = _captured_pages(store, choice)
    chosen = (entry for entry in entries if not choice.has_ids or entry.queue_id in ids)
    return islice(chosen, choice.limit)


def _captured_pages(store: Store, choice: Choice) -> Iterator[QueueEntry]:
    find = partial(
        store.sandbox.find_captured, parse_search(choice.search), selection=choice.selection
    )
    seen: set[str] = set()  # mail that arrives meanwhile moves the pages
    start = 0
    while page := find(start=start, limit=PAGE_MESSAGES):
        for mail in page:
            if mail.entry.queue_id not in seen:
                seen.add(mail.entry.queue_id)
                yield mail.entry
        start += len(page)
