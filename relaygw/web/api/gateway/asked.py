"""What a request to the gateway's API asks for. Whatever is not understood is a Problem, never
"any": an empty variable in a script must not turn the deletion of some mail into that of all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC
from typing import Any

from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request

from relaygw.mail.search_values import read_time_ms
from relaygw.mail.storable import unstorable_sign
from relaygw.operations.selectors import SELECTORS
from relaygw.settings.units import parse_duration
from relaygw.web import words
from relaygw.web.api.json_body import WHOLE, Found, read_object
from relaygw.web.context import is_queue_id
from relaygw.web.problem import Problem
from relaygw.web.queue.selection import Asked, check_length, read_pairs

MAX_IDS = 10_000
MAX_LISTED = 1000
DEFAULT_LISTED = 100
_EXAMPLE_TIME = "2026-01-31T12:00:00Z, or an age like 6h"


def known_parameters(request: Request, names: Collection[str]) -> QueryParams:
    """Return the parameters; raises Problem for an unknown name and an empty value."""
    for name, value in request.query_params.multi_items():
        if name not in names:
            raise Problem(
                400, f"parameter {name[:40]!r} is not known", expected=", ".join(sorted(names))
            )
        _check_value(name, value)
    return request.query_params


def _check_value(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Problem(
            400, f"{name} is empty or no text", expected="a text", remedy="leave it out for any"
        )
    return check_length(name, _storable(name, value))


def _storable(name: str, value: str) -> str:
    sign = unstorable_sign(value)
    if sign is not None:
        raise Problem(400, f"{name} has {sign!r}", expected=WHOLE)
    return value


def limit_of(given: QueryParams) -> int:
    """Return how many are asked for."""
    word = given.get("limit", str(DEFAULT_LISTED))
    if not (word.isascii() and word.isdigit() and 0 < int(word[:9]) <= MAX_LISTED):
        raise Problem(400, f"limit {word[:20]!r} is none", expected=f"1 to {MAX_LISTED}")
    return int(word)


def after_of(given: QueryParams) -> str:
    """Return the id that a page begins after, "" for the first page."""
    after = given.get("after", "").upper()
    if after and not is_queue_id(after):
        raise Problem(
            400, f"after {after[:40]!r} is no queue id", expected="`next` of the page before"
        )
    return after


def since_of(given: QueryParams, *, default_ms: int) -> int:
    """Return a time that is given as such, or as an age."""
    word = given.get("since")
    if word is None:
        return default_ms
    at_ms = read_time_ms(word, UTC)
    if at_ms is not None:
        return at_ms
    try:
        return words.now_ms() - int(parse_duration(word) * 1000)
    except ValueError:
        raise Problem(400, f"since {word[:40]!r} is no time", expected=_EXAMPLE_TIME) from None


async def body_of(request: Request, names: Collection[str]) -> Found:
    """Return the object in the body; raises Problem for what is none, and for unknown names."""
    try:
        body = await read_object(request)
    except Problem:
        raise
    except HTTPException as error:
        raise Problem(400, error.detail, expected="a JSON object") from None
    for name in body:
        if name not in names:
            raise Problem(
                400,
                f"{name[:40]!r} in the body is not known",
                expected=", ".join(sorted(names)) or "no body",
            )
    return body


def flag(body: Found, name: str) -> bool:
    """Return true or false, false if it is not there."""
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise Problem(400, f"{name} is neither true nor false", expected="true or false")
    return value


def text(body: Found, name: str) -> str:
    """Return a text on one line, "" if it is not there."""
    value = body.get(name, "")
    if not isinstance(value, str):
        raise Problem(400, f"{name} is no text", expected="a text")
    return " ".join(_storable(name, value).split())


def ids_of(body: Found) -> tuple[str, ...]:
    """Return the queue ids of a body, none if they are not there."""
    given = body.get("ids", [])
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise Problem(400, "ids is no list of texts", expected='["1M8A85JPFC6TFQAQP"]')
    if len(given) > MAX_IDS:
        raise Problem(
            400,
            f"ids has {len(given)} of them",
            expected=f"at most {MAX_IDS}",
            remedy="send several requests, or select",
        )
    ids = [one.strip().upper() for one in given]
    for one in ids:
        if not is_queue_id(one):
            raise Problem(400, f"{one[:40]!r} is no queue id", expected="10 to 20 of A-Z and 0-9")
    return tuple(dict.fromkeys(ids))


def selection_of(body: Found, *, now_ms: int) -> Asked:
    """Return the messages that `select` of a body describes."""
    given = body.get("select", {})
    if not isinstance(given, dict):
        raise Problem(400, "select is no object", expected='{"subject": "order"}')
    return read_pairs(list(_pairs(given)), now_ms=now_ms)


def _pairs(given: dict[str, Any]) -> Iterable[tuple[str, str]]:
    names = [name for name in SELECTORS if name != "id"]
    for name, value in given.items():
        if name not in names:
            raise Problem(
                400, f"select.{name[:40]} is not known", expected=", ".join(sorted(names))
            )
        for one in value if name == "state" and isinstance(value, list) else [value]:
            yield name, _check_value(f"select.{name}", one)
