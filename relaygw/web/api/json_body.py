"""JSON in the body of a request, looked at before it is used. Errors are 400 with the reason.

A key counts however it is spelled in capitals, as Mailpit reads it: otherwise `{"ids": [...]}`
would name nothing, and nothing named means everything. For the same reason the form that
mailpit-api-client (PyPI) sends in the place of JSON is read: its ids are ids.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request

from relaygw.mail.words import unstorable_sign
from relaygw.web.page import Problem

MAX_LISTED = 10_000
_FORM = "application/x-www-form-urlencoded"
_MAX_FORM_FIELDS = MAX_LISTED + 10

WHOLE = "whole characters, no NUL and no half of a surrogate pair"

Found = dict[str, Any]


async def read_object(request: Request) -> Found:
    """Return the object in the body, an empty one without a body."""
    body = await request.body()
    if not body.strip():
        return {}
    if request.headers.get("content-type", "").startswith(_FORM) and not body.startswith(b"{"):
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
        raise HTTPException(400, 'the body is no JSON object; e.g. {"IDs": []}')
    return found


def _form(body: bytes) -> Found:
    """Return a form with ids and a mark as the object that it stands for."""
    try:
        fields = parse_qs(body.decode(), max_num_fields=_MAX_FORM_FIELDS, strict_parsing=True)
    except ValueError:
        raise HTTPException(400, "the body is neither JSON nor a form") from None
    marks = {"true": True, "false": False}
    found: Found = {}
    for name, values in fields.items():
        is_list = name.lower() == "ids"
        found[name] = values if is_list else marks.get(values[-1].lower(), values[-1])
    return found


def value_of(found: Found, name: str) -> Any:
    """Return what stands under a name, None if nothing does."""
    if name in found:
        return found[name]
    return next((value for key, value in found.items() if key.lower() == name.lower()), None)


def strings(found: Found, name: str) -> list[str]:
    """Return a list of texts, empty if it is not there."""
    values = listed(found, name)
    if not all(isinstance(one, str) for one in values):
        raise HTTPException(400, f"{name} is not a list of texts")
    return values


def objects(found: Found, name: str) -> list[Found]:
    """Return a list of objects, empty if it is not there."""
    values = listed(found, name)
    if not all(isinstance(one, dict) for one in values):
        raise HTTPException(400, f"{name} is not a list of objects")
    return values


def listed(found: Found, name: str) -> list[Any]:
    """Return a list, empty if it is not there."""
    value = value_of(found, name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise HTTPException(400, f"{name} is not a list")
    if len(value) > MAX_LISTED:
        raise HTTPException(400, f"{name} lists {len(value)}; at most {MAX_LISTED} at a time")
    return value


def text(found: Found, name: str) -> str:
    """Return a text, "" if it is not there."""
    value = value_of(found, name)
    if value is not None and not isinstance(value, str):
        raise HTTPException(400, f"{name} is not a text")
    return value or ""


def flag(found: Found, name: str) -> bool:
    """Return true or false, false if it is not there."""
    value = value_of(found, name)
    if value is not None and not isinstance(value, bool):
        raise HTTPException(400, f"{name} is not true or false")
    return bool(value)
