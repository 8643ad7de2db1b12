"""What requests to the APIs say, checked: JSON, and parameters and bodies of the gateway's own.

In JSON a key counts in any case, as Mailpit reads it: else `{"ids": [...]}` would name nothing, and
nothing named means everything. What the gateway's API does not understand is a Problem, never
"any": an empty variable must not turn the deletion of some mail into that of all.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qs

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    create_model,
    model_validator,
)
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request

from relaygw.mail.clock import clock_ms
from relaygw.mail.search import OUTCOMES, MailSearch, SearchMistake
from relaygw.mail.search_values import read_time_ms
from relaygw.mail.words import unstorable_sign
from relaygw.operations import readers
from relaygw.operations.queue_actions import QueueAction
from relaygw.operations.selectors import ANY_STATE, SELECTORS, Kind, search_of
from relaygw.settings.section import parse_duration
from relaygw.web.api.answers import QueueId, said
from relaygw.web.context import is_queue_id
from relaygw.web.gate.access import FORM
from relaygw.web.gate.identity import Principal
from relaygw.web.lists import Choice
from relaygw.web.page import Problem
from relaygw.web.queue.selection import QueueChoice, check_length, read_pairs

MAX_ITEMS = 10_000
WHOLE = "valid characters, without NUL and lone surrogates"

Found = dict[str, Any]
Kept = TypeVar("Kept")


async def read_object(request: Request) -> Found:
    """Return the object in the body, an empty one without a body."""
    body = await request.body()
    if not body.strip():
        return {}
    is_form = request.headers.get("content-type", "").startswith(FORM)
    if is_form and not body.startswith(b"{"):
        return _form(body)
    try:
        found = json.loads(body)
        # NUL stays an escape here: who stores a text looks at it
        sign = unstorable_sign(json.dumps(found, ensure_ascii=False))
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is not JSON") from None
    if sign is not None:
        raise Problem(400, f"the body has {sign!r}", expected=WHOLE)
    if not isinstance(found, dict):
        raise HTTPException(400, 'the body is not a JSON object; e.g. {"IDs": []}')
    return found


def _form(body: bytes) -> Found:
    try:
        fields = parse_qs(body.decode(), max_num_fields=MAX_ITEMS + 10, strict_parsing=True)
    except ValueError:
        raise HTTPException(400, "the body is neither JSON nor a form") from None
    marks = {"true": True, "false": False}
    return {
        name: values if name.lower() == "ids" else marks.get(values[-1].lower(), values[-1])
        for name, values in fields.items()
    }


def value_of(found: Found, name: str) -> Any:
    """Return the value of a name, None if it has none."""
    if name in found:
        return found[name]
    return next((value for key, value in found.items() if key.lower() == name.lower()), None)


def _value(found: Found, name: str, kind: type[Kept], words: str) -> Kept:
    value = value_of(found, name)
    if value is not None and not isinstance(value, kind):
        raise HTTPException(400, f"{name} is not {words}")
    return value or kind()


def strings(found: Found, name: str) -> list[str]:
    """Return a list of texts, empty if it is not there."""
    return _listed(found, name, str, "texts")


def objects(found: Found, name: str) -> list[Found]:
    """Return a list of objects, empty if it is not there."""
    return _listed(found, name, dict, "objects")


def _listed(found: Found, name: str, kind: type, words: str) -> list[Any]:
    value: list[Any] = _value(found, name, list, "a list")
    if len(value) > MAX_ITEMS:
        raise HTTPException(400, f"{name} lists {len(value)}; at most {MAX_ITEMS} at a time")
    if not all(isinstance(entry, kind) for entry in value):
        raise HTTPException(400, f"{name} is not a list of {words}")
    return value


def text(found: Found, name: str) -> str:
    """Return a text, "" if it is not there."""
    return _value(found, name, str, "a text")


def flag(found: Found, name: str) -> bool:
    """Return true or false, false if it is not there."""
    return _value(found, name, bool, "true or false")


MAX_LISTED = 1000
DEFAULT_LISTED = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request after its checks."""

    request: Request
    principal: Principal
    given: QueryParams
    body: Any  # of the class that the endpoint takes


def known_parameters(request: Request, names: Collection[str]) -> QueryParams:
    """Return the parameters; raises Problem for an unknown name and an empty value."""
    for name, value in request.query_params.multi_items():
        if name not in names:
            known = ", ".join(sorted(names))
            raise Problem(400, f"parameter {name[:40]!r} is not known", expected=known)
        _check_condition(name, value)
    return request.query_params


def limit_of(given: QueryParams) -> int:
    """Return how many are asked for."""
    word = given.get("limit", str(DEFAULT_LISTED))
    if not (word.isascii() and word.isdigit() and len(word) < 9 and 0 < int(word) <= MAX_LISTED):
        raise Problem(400, f"limit {word[:20]!r} is not valid", expected=f"1 to {MAX_LISTED}")
    return int(word)


def after_of(given: QueryParams) -> str:
    """Return the id that a page begins after, "" for the first page."""
    after = given.get("after", "").upper()
    if after and not is_queue_id(after):
        expected = "`next` of the page before"
        raise Problem(400, f"after {after[:40]!r} is not a queue id", expected=expected)
    return after


def since_of(given: QueryParams, *, default_ms: int, name: str = "since") -> int:
    """Return a time that is given as such, or as an age."""
    word = given.get(name)
    if word is None:
        return default_ms
    at_ms = read_time_ms(word, UTC)
    if at_ms is not None:
        return at_ms
    try:
        return clock_ms() - int(parse_duration(word) * 1000)
    except ValueError:
        expected = "2026-01-31T12:00:00Z, or an age like 6h"
        raise Problem(400, f"{name} {word[:40]!r} is not a time", expected=expected) from None


def search_of_all(given: QueryParams) -> MailSearch:
    """Return the search over all mail that parameters make."""
    text, *others = (given.get(name, "") for name in ("q", "result", "since", "until"))
    result = others[0]
    if not (text or any(others)):
        raise Problem(400, "nothing to find", expected="q, result, since or until")
    if result and result not in OUTCOMES:
        raise Problem(400, f"result {result[:40]!r} is not known", expected=", ".join(OUTCOMES))
    try:
        return search_of(text, *others)
    except SearchMistake as mistake:
        raise Problem(400, mistake.what, expected=mistake.expected) from None


def _check_condition(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        what, remedy = f"{name} is empty or no text", "omit it for any"
        raise Problem(400, what, expected="a text", remedy=remedy)
    check_length(name, _storable(name, value))


def _storable(name: str | None, value: str) -> str:
    sign = unstorable_sign(value)
    if sign is not None:
        raise Problem(400, f"{name} has {sign!r}", expected=WHOLE)
    return value


def _flag(value: object, info: ValidationInfo) -> object:
    if isinstance(value, bool):
        return value
    raise Problem(400, f"{info.field_name} is not true or false", expected="true or false")


def read_line(value: object, info: ValidationInfo) -> str:
    """Return a text on one line; raises Problem."""
    if not isinstance(value, str):
        raise Problem(400, f"{info.field_name} is not text", expected="a text")
    return " ".join(_storable(info.field_name, value).split())


def _note(value: object, info: ValidationInfo) -> str:
    try:
        return readers.read_line(read_line(value, info))
    except ValueError as error:
        raise Problem(400, f"{info.field_name} {error}", expected="a shorter one") from None


def read_ids(given: object) -> list[str]:
    """Return queue ids, each once; raises Problem."""
    if not isinstance(given, list) or not all(isinstance(queue_id, str) for queue_id in given):
        raise Problem(400, "ids is not a list of texts", expected='["1M8A85JPFC6TFQAQP"]')
    if len(given) > MAX_ITEMS:
        what, remedy = f"ids has {len(given)} of them", "send several requests, or select"
        raise Problem(400, what, expected=f"at most {MAX_ITEMS}", remedy=remedy)
    ids = [queue_id.strip().upper() for queue_id in given]
    for queue_id in ids:
        if not is_queue_id(queue_id):
            raise Problem(
                400, f"{queue_id[:40]!r} is not a queue id", expected="10 to 20 of A-Z and 0-9"
            )
    return list(dict.fromkeys(ids))


def _select(given: object) -> Any:
    if not isinstance(given, dict):
        raise Problem(400, "select is not an object", expected='{"subject": "order"}')
    for name, value in given.items():
        if name not in Select.model_fields:
            known = ", ".join(sorted(Select.model_fields))
            raise Problem(400, f"select.{name[:40]} is not known", expected=known)
        takes_list = SELECTORS[name].kind is Kind.CHOICE
        for condition in value if takes_list and isinstance(value, list) else [value]:
            _check_condition(f"select.{name}", condition)
    made = Select(**given)
    made._names = tuple(given)
    return made


Flag = Annotated[bool, BeforeValidator(_flag)]
Line = Annotated[str, BeforeValidator(read_line)]
_Note = Annotated[str, BeforeValidator(_note)]


class Body(BaseModel):
    """The object in the body of a request; what it has is among these fields."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name in given:
            if name not in cls.model_fields:
                known = ", ".join(sorted(cls.model_fields)) or "no body"
                raise Problem(400, f"{name[:40]!r} in the body is not known", expected=known)
        for name, field in cls.model_fields.items():
            if field.is_required() and name not in given:
                raise Problem(400, f"{name} is missing", expected=f'{{"{name}": [...]}}')
        return given


class Conditions(BaseModel):
    """Conditions of selectors; the class with one field for each is `Select`."""

    model_config = ConfigDict(extra="forbid")
    _names: tuple[str, ...] = PrivateAttr(())

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Yield the conditions one by one, in the order in which they were given."""
        for name in self._names:
            value = getattr(self, name)
            yield from (
                (name, condition) for condition in (value if isinstance(value, list) else [value])
            )


_CONDITIONS: dict[str, Any] = {
    name: (str | list[str] if selector.kind is Kind.CHOICE else str, "")
    for name, selector in SELECTORS.items()
    if selector.kind is not Kind.ID
}
Select = create_model(
    "Select",
    __base__=Conditions,
    __doc__="Messages that match all conditions; texts match anywhere, ignoring case, except "
    "provider, route, stream, client and host, which must match exactly.",
    **_CONDITIONS,
)


class Change(Body):
    """One of ids, select and all names the messages."""

    ids: Annotated[list[QueueId], BeforeValidator(read_ids), Field(max_length=MAX_ITEMS)] = said(
        "these", default=[]
    )
    select: Annotated[Conditions, BeforeValidator(_select)] = Conditions()
    all: Flag = False
    dry_run: Flag = said("change nothing, only list the messages", default=False)

    @model_validator(mode="before")
    @classmethod
    def _check_named(cls, given: dict[str, Any]) -> dict[str, Any]:
        named = [name for name in ("ids", "select", "all") if name in given]
        if len(named) == 1:
            return given
        what, expected = " and ".join(named) or "nothing", "one of ids, select and all"
        remedy = 'write {"ids": [...]}, {"select": {...}} or {"all": true}'
        raise Problem(400, f"the body names {what}", expected=expected, remedy=remedy)

    def choice(self, *, now_ms: int) -> QueueChoice:
        """Return which messages are named: by ids, by conditions, or all waiting."""
        conditions = read_pairs(self.select.pairs(), now_ms=now_ms, tz=UTC)
        if "ids" in self.model_fields_set:
            return Choice(listing=conditions, ids=tuple(self.ids))
        if "select" in self.model_fields_set and not conditions.given:
            what, remedy = "select has no condition", 'write {"all": true}'
            raise Problem(400, what, expected="at least one", remedy=remedy)
        if "all" in self.model_fields_set and not self.all:
            raise Problem(400, "all is false: no message is named", expected="ids or select")
        if "state" not in conditions.given:  # those that the change is meant for
            every = replace(conditions.selection, states=ANY_STATE)
            conditions = replace(conditions, selection=every)
        return Choice(listing=conditions, until=str(now_ms + 1))


def change_of(action: QueueAction) -> type[Change]:
    """Return the class of the body that an action takes."""
    states = " or ".join(sorted(action.from_states))
    fields: dict[str, Any] = {"all": (Flag, said(f"all that is {states}", default=False))}
    if action.note_help:
        fields["note"] = (_Note, said("why; kept with the message", default=""))
    if action.takes_provider:
        fields["provider"] = (Line, said("the new provider", default=""))
    if action.force_help:
        what = "also mail that may have been taken already: it may be sent twice"
        fields["force"] = (Flag, said(what, default=False))
    fields["select"] = (Annotated[Select, BeforeValidator(_select)], Select())
    return create_model(f"{action.label}Change", __base__=Change, __doc__=Change.__doc__, **fields)


async def body_of(request: Request, kind: type[Body]) -> Any:
    """Return the body as an object of a class; raises Problem for anything else."""
    try:
        found = await read_object(request)
    except Problem:
        raise
    except HTTPException as error:
        raise Problem(400, error.detail, expected="a JSON object") from None
    return kind.model_validate(found)
