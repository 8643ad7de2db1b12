"""What a request for a list asks for: the page, the search, its time zone. Errors are 400."""

from __future__ import annotations

import re
import zoneinfo
from datetime import UTC, tzinfo

from starlette.exceptions import HTTPException
from starlette.requests import Request

from relaygw.mail.search import MAX_CHARACTERS, MAX_TERMS, MailSearch, parse_search

MAX_LISTED = 1000
DEFAULT_LISTED = 50

_NUMBER = re.compile(r"[0-9]{1,9}")


def page_of(request: Request) -> tuple[int, int]:
    """Return `start` and `limit` of a list; raises 400."""
    start = _number(request, "start", default=0)
    limit = _number(request, "limit", default=DEFAULT_LISTED)
    # Mailpit takes 0 for all of them
    return start, min(limit, MAX_LISTED) if limit else MAX_LISTED


def query_of(request: Request) -> str:
    """Return the search of a request; raises 400 without one."""
    query = request.query_params.get("query", "").strip()
    if not query:
        raise HTTPException(400, "query is empty; write what to look for, e.g. query=subject:order")
    return query


def search_of(request: Request, query: str) -> MailSearch:
    """Return what `query` asks for, its dates of the zone `tz` of a request; raises 400."""
    search = parse_search(query, tz=_zone(request.query_params.get("tz", "")))
    if search.is_void:  # else a test for "no such mail" would pass
        raise HTTPException(
            400,
            f"query has no word, more than {MAX_TERMS} terms or {MAX_CHARACTERS} characters",
        )
    return search


def _zone(name: str) -> tzinfo:
    try:
        return zoneinfo.ZoneInfo(name) if name else UTC
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise HTTPException(400, f"tz is no time zone: {name[:40]!r}; e.g. Europe/Berlin") from None


def _number(request: Request, name: str, *, default: int) -> int:
    value = request.query_params.get(name)
    if not value:
        return default
    if not _NUMBER.fullmatch(value):
        raise HTTPException(400, f"{name} is not a number from 0 to 999999999")
    return int(value)
