"""`/api/gateway/v1/wait`: answers when a mail arrives, with its codes and links.

A test asks once instead of asking for the list again and again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from relaygw.mail.search import (
    MAX_CHARACTERS,
    Field,
    MailSearch,
    Term,
    parse_search,
    searchable,
)
from relaygw.mail.search_values import read_time_ms
from relaygw.settings.units import parse_duration
from relaygw.store.captured import CapturedEntry
from relaygw.web.context import Desk
from relaygw.web.mail.mime_tree import load_tree
from relaygw.web.sandbox.api.extracts import codes_of
from relaygw.web.sandbox.api.links import links_of
from relaygw.web.sandbox.api.reading import message_of
from relaygw.web.sandbox.arrivals import Arrivals

MAX_WAIT_S = 120.0
DEFAULT_WAIT_S = 10.0
MAX_WAITING = 50
_PAGE = 20
_MAX_LOOKED_AT = 500  # messages that name the address as a part of another one
_RECHECK_S = 2.0  # for what nobody is woken by: new tags
_TERMS = {"from": Field.FROM, "subject": Field.SUBJECT}
_PARAMETERS = ("to", *_TERMS, "query", "since", "timeout")


class Waiting:
    """The endpoint."""

    def __init__(self, desk: Desk, arrivals: Arrivals) -> None:
        self._desk = desk
        self._arrivals = arrivals
        self._waiting = 0

    async def wait(self, request: Request) -> Response:
        """Answer the newest matching message; 408 if none came within `timeout`.

        `to` is a whole address, of the envelope or of the header; `from` and `subject` are
        parts of a text; `query` is a search; `since` leaves out what was captured before.
        """
        search, to, wait_s = _asked(request)
        if self._waiting >= MAX_WAITING:
            raise HTTPException(503, f"{MAX_WAITING} wait already", {"Retry-After": "5"})
        self._waiting += 1
        try:
            found = await self._found(request, search, to, time.monotonic() + wait_s)
        finally:
            self._waiting -= 1
        if found is None:
            raise HTTPException(408, f"no such mail within {wait_s:g} s")
        return await self._desk.open(lambda: self._answer(found))

    async def _found(
        self, request: Request, search: MailSearch, to: str, until_s: float
    ) -> CapturedEntry | None:
        while True:
            version = self._arrivals.version
            found = await self._desk.read(lambda: self._newest(search, to))
            left_s = until_s - time.monotonic()
            if found is not None or left_s <= 0 or await request.is_disconnected():
                return found
            if self._arrivals.stop.is_set():
                raise HTTPException(503, "the gateway stops; ask again", {"Retry-After": "5"})
            await self._arrivals.after(version, timeout_s=min(_RECHECK_S, left_s))

    def _newest(self, search: MailSearch, to: str) -> CapturedEntry | None:
        self._desk.indexer.catch_up()
        for start in range(0, _MAX_LOOKED_AT, _PAGE):
            found = self._desk.store.find_captured(search, start=start, limit=_PAGE)
            for one in found:
                if not to or _is_to(one, to):
                    return one
            if len(found) < _PAGE:
                break
        return None

    def _answer(self, found: CapturedEntry) -> Response:
        tree = load_tree(self._desk.store, found.entry)
        message = message_of(found, tree)
        return JSONResponse(
            {
                "message": message,
                "codes": codes_of(f"{found.entry.subject}\n{message['Text']}"),
                "links": [
                    {"url": one.target, "text": one.text, "where": one.where}
                    for one in links_of(message, tree)
                ],
            }
        )


def _asked(request: Request) -> tuple[MailSearch, str, float]:
    """Return what is waited for, for whom, and how long; raises 400."""
    given = request.query_params
    unknown = set(given) - set(_PARAMETERS)
    if unknown:
        name = min(unknown)[:40]
        raise HTTPException(400, f"{name!r} is none of {', '.join(_PARAMETERS)}")
    search = parse_search(given.get("query", ""))
    if search.is_void:
        raise HTTPException(400, "query is too long, or nothing that can be looked for")
    terms = list(search.terms)
    for name, field in _TERMS.items():
        if given.get(name):
            terms.append(Term(field=field, text=_part(given, name)))
    to = given.get("to", "").strip().lower()
    if to:
        terms.append(Term(field=Field.ADDRESSED, text=_part(given, "to")))
    if given.get("since"):
        terms.append(Term(field=Field.AFTER, number=_since_ms(given["since"])))
    if not terms:
        raise HTTPException(400, "nothing to wait for; write to=, from=, subject= or query=")
    wait_s = _wait_s(given.get("timeout", ""))
    return MailSearch(terms=tuple(terms)), to, wait_s


def _part(given: Mapping[str, str], name: str) -> str:
    part = searchable(given[name][:MAX_CHARACTERS])
    if not part:
        raise HTTPException(400, f"{name} has nothing that can be looked for")
    return part


def _since_ms(value: str) -> int:
    at_ms = read_time_ms(value, UTC)
    if at_ms is None:
        raise HTTPException(400, f"since is no time: {value[:40]!r}; e.g. 2026-01-31T12:00:00Z")
    return at_ms


def _wait_s(value: str) -> float:
    try:
        wait_s = parse_duration(value) if value else DEFAULT_WAIT_S
    except ValueError as error:
        raise HTTPException(400, f"timeout {value[:40]!r} {error}") from None
    if wait_s > MAX_WAIT_S:
        raise HTTPException(400, f"timeout is at most {MAX_WAIT_S:g}s")
    return wait_s


def _is_to(found: CapturedEntry, address: str) -> bool:
    """True when the address stands whole in the envelope, or in To, Cc or Bcc."""
    facts = found.facts
    named = [*facts.to, *facts.cc, *facts.bcc] if facts is not None else []
    envelope = [
        one
        for recipient in found.entry.recipients
        for one in (recipient.address, recipient.original or "")
    ]
    return address in {one.lower() for one in (*envelope, *(c["Address"] for c in named))}
