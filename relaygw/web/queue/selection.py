"""Which queued messages a request or a form is about, and actions on them; for pages and the API.

An empty value is no condition, as a form sends it; one that cannot select is an error, not "any".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from typing import Any, ClassVar
from urllib.parse import urlencode

from starlette.datastructures import FormData, ImmutableMultiDict
from starlette.requests import Request

from relaygw.mail.state import OPEN, DeliveryState
from relaygw.operations import queue_actions, selectors
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.selection import MAX_TEXT_CHARACTERS, Selection
from relaygw.web.context import WebContext, existing, is_queue_id
from relaygw.web.lists import Choice, means_all, ticked_ids
from relaygw.web.page import Problem

_MAX_MS = 10**14


class WrongValue(Problem):
    """A field has a value that cannot be read."""

    def __init__(self, name: str, value: str, kind: str, expected: str) -> None:
        super().__init__(400, f"{name} {value[:40]!r} is not {kind}", expected=expected)
        self.name, self.value = name, value


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Messages that all conditions hold for; none given: all waiting."""

    place: ClassVar[str] = "/queue"
    box: ClassVar[str] = "tick"
    end: ClassVar[str] = "looked_at"

    given: Mapping[str, tuple[str, ...]]  # as it was written, without what is empty
    selection: Selection

    @property
    def words(self) -> str:
        """The conditions for people and the audit trail."""
        return " ".join(f"{name}={value!r}" for name, value in self.pairs()) or "all waiting"

    def pairs(self) -> list[tuple[str, str]]:
        """Return the conditions one by one."""
        return [(name, value) for name, values in self.given.items() for value in values]

    def one(self, name: str) -> str:
        """Return the value of a condition, "" without it."""
        return next(iter(self.given.get(name, ())), "")

    def path(self, **more: str | int) -> str:
        """Return the path of the list of these messages."""
        pairs = [*self.pairs(), *((name, str(value)) for name, value in more.items() if value)]
        return self.place + (f"?{urlencode(pairs)}" if pairs else "")

    def back(self, form: FormData) -> str:
        """Return the path of the list, its first page."""
        return self.path()

    def changed(self, values: Mapping[str, str]) -> Conditions:
        """Return the same with other values of some conditions, or with "" without them."""
        kept = [(key, each) for key, each in self.pairs() if key not in values]
        return read_pairs([*kept, *values.items()], now_ms=0)

    def batches(
        self, web: WebContext, until: str, states: frozenset[DeliveryState]
    ) -> Iterator[Sequence[str]]:
        """Yield the ids of those in one of `states` that were accepted before `until`, in ms."""
        found = self.narrowed(states, int(until))
        if found is not None:
            yield from queue_actions.found_batches(web.store, found.selection)

    def narrowed(self, states: frozenset[DeliveryState], limit_ms: int) -> Conditions | None:
        """Return the same in one of `states`, without what was accepted since; None for nothing."""
        states, before_ms = states & self.selection.states, self.selection.accepted_before_ms
        limit_ms = min(limit_ms, limit_ms if before_ms is None else before_ms)
        found = replace(self.selection, states=states, accepted_before_ms=limit_ms)
        return replace(self, selection=found) if states else None


def read_conditions(
    given: ImmutableMultiDict[str, object], *, now_ms: int, tz: tzinfo | None = None
) -> Conditions:
    """Return the selection of parameters or a form; raises Problem. Other names are ignored."""
    pairs = [
        (name, str(value)) for name, value in given.multi_items() if name in selectors.SELECTORS
    ]
    return read_pairs(pairs, now_ms=now_ms, tz=tz)


def read_page(
    given: ImmutableMultiDict[str, object], *, now_ms: int
) -> tuple[Conditions, dict[str, WrongValue]]:
    """Return the readable parameters of a page, and by name those that are not; see above."""
    wrong: dict[str, WrongValue] = {}
    while True:
        left = [pair for pair in given.multi_items() if pair[0] not in wrong]
        try:
            return read_conditions(ImmutableMultiDict(left), now_ms=now_ms), wrong
        except WrongValue as error:
            wrong[error.name] = error


def read_pairs(
    pairs: Iterable[tuple[str, str]], *, now_ms: int, tz: tzinfo | None = None
) -> Conditions:
    """Return the selection of these conditions; raises Problem. Times: see read_moment."""
    found: dict[str, tuple[str, ...]] = {}
    for name, value in pairs:
        word = read_word(name, value)
        if word and word not in found.get(name, ()):
            several = found.get(name, ()) if selectors.SELECTORS[name].is_repeated else ()
            found[name] = (*several, word)
    return Conditions(given=found, selection=_selection(found, now_ms, tz))


def read_word(name: str, value: str) -> str:
    """Return the text typed into a field; raises Problem if it is too long."""
    return check_length(name, value.replace("\0", "").strip())


def check_length(name: str, value: str) -> str:
    """Return a value; raises Problem if it is too long. A cut one would select more."""
    if len(value) > MAX_TEXT_CHARACTERS:
        most = f"at most {MAX_TEXT_CHARACTERS:,}"
        raise Problem(400, f"{name} has {len(value):,} characters", expected=most)
    return value


def _selection(found: Mapping[str, tuple[str, ...]], now_ms: int, tz: tzinfo | None) -> Selection:
    values: dict[str, Any] = {}
    for name, given in found.items():
        if name in selectors.CHOICES:
            values[name] = list(_words(name, given))
        elif name == "id":
            values[name] = [queue_id.upper() for queue_id in given]
        else:
            values[name] = read_value(name, given[0], now_ms, tz)
    if "since" in values and "until" in values and values["since"] > values["until"]:
        raise WrongValue("since", found["since"][0], "earlier than until", "an earlier time")
    return selectors.selection_of(values, default_states=OPEN, now_ms=now_ms)


def _words(selector: str, given: Iterable[str]) -> Iterator[str]:
    for word in (word for words in given for word in words.split(",") if word):
        if word not in selectors.CHOICES[selector]:
            known = ", ".join(
                sorted(choice for choice in selectors.CHOICES[selector] if choice != selectors.ALL)
            )
            known += f" or {selectors.ALL}" if selectors.ALL in selectors.CHOICES[selector] else ""
            other = selectors.misplaced(selector, word)
            what = f"{selector} {word[:40]!r} is not known"
            remedy = f"omit {selector} for {_WITHOUT[selector]}"
            if other:
                article = "an" if other[0] in "aeiou" else "a"
                remedy = f"it is {article} {other}: write {other}={word}"
            raise Problem(400, what, expected=known, remedy=remedy)
        yield word


_WITHOUT = {"state": "all waiting", "result": "any", "attempt": "any"}


_EXPECTED = {
    selectors.Kind.TIME: ("a time", selectors.TIMES),
    selectors.Kind.NUMBER: ("a user ID", "one like 33; `id -u NAME` prints it"),
    selectors.Kind.AGE: ("a duration", "one like 30s, 5m, 4h or 7d"),
}


def read_value(name: str, word: str, now_ms: int, tz: tzinfo | None = None) -> Any:
    """Return the value of a selector that takes one; raises WrongValue. See read_moment."""
    value = selectors.read_value(name, word, now_ms=now_ms, tz=tz)
    if value is None:
        raise WrongValue(name, word, *_EXPECTED[selectors.SELECTORS[name].kind])
    return value


ORDERS = ("newest", "oldest")


def read_order(word: str, conditions: Conditions) -> bool:
    """Return whether the newest come first: as somebody wants it, else as usual; raises Problem."""
    if word and word not in ORDERS:
        raise Problem(400, f"order {word[:40]!r} is not known", expected=" or ".join(ORDERS))
    return word == "newest" if word else selectors.is_newest_first(conditions.selection)


def queued_of(web: WebContext, request: Request) -> QueueEntry:
    """Return the message that the path names, whatever its state; raises 404 without one."""
    queue_id = request.path_params["queue_id"]
    found = web.store.queue.entries([queue_id]) if is_queue_id(queue_id) else []
    return existing(next(iter(found), None))


QueueChoice = Choice[Conditions]


def read_queue_choice(form: FormData, *, now_ms: int) -> QueueChoice:
    """Return the messages of a form: ticks, or with `all` or `scope` matches; raises Problem."""
    looked_at = str(form.get(Conditions.end, ""))
    is_time = looked_at.isascii() and looked_at.isdigit() and len(looked_at) < 15
    until_ms = min(int(looked_at), _MAX_MS) if is_time else 0
    return Choice(
        listing=read_conditions(form, now_ms=until_ms or now_ms),
        ids=ticked_ids(form, Conditions.box),
        until=str(until_ms) if is_time and means_all(form) else "",
    )


def carry_out(
    web: WebContext,
    action: queue_actions.QueueAction,
    choice: QueueChoice,
    order: queue_actions.Order,
    *,
    now_ms: int,
) -> queue_actions.Result:
    """Do `action` to the messages of a choice; blocks on the store, raises StoreUnavailable."""
    routes = queue_actions.routes_taken(web.store, web.settings)
    screen = queue_actions.screen_of(web.store, web.settings)
    order = replace(order, routes=routes, screen=screen, pauses_of=web.settings)
    found = {entry.queue_id for entry in web.store.queue.entries(choice.ids)} if choice.ids else ()
    gone = (queue_id for queue_id in choice.ids if queue_id not in found)
    left = [
        queue_actions.LeftAlone(queue_id=queue_id, why="it is no longer there") for queue_id in gone
    ]
    changed: list[str] = []
    for batch in choice.batches(web, action.from_states):
        result = queue_actions.change_queued(web.store, action, batch, order, now_ms=now_ms)
        changed += result.changed
        left += result.left
    return queue_actions.Result(changed=tuple(changed), left=tuple(left))
