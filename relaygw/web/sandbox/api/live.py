"""What waits for captured mail: Mailpit's live events, and the gateway's `wait`.

`/api/events` tells of the newest messages only: `new`, `update` (marked), `delete`, `stats`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from relaygw import __version__
from relaygw.errors import StoreUnavailable
from relaygw.mail.content_facts import ContentFacts
from relaygw.mail.search import (
    EVERYTHING,
    MAX_CHARACTERS,
    MAX_TERMS,
    Field,
    MailSearch,
    Term,
    parse_search,
)
from relaygw.mail.search_values import read_time_ms
from relaygw.mail.searchable_text import searchable
from relaygw.settings.section import parse_duration
from relaygw.store.sandbox import CapturedEntry
from relaygw.web.context import WebContext
from relaygw.web.gate.identity import is_still_in
from relaygw.web.mail.parts import load_tree
from relaygw.web.page import Problem
from relaygw.web.sandbox.api.messages import Json, links_of, message_json, summary_json

MAX_SOCKETS = 20
WATCHED = 200  # messages; of more that come between two looks the first ones are not told
_EVENTS_RECHECK_S = 5.0
_GOING_AWAY, _NOT_ALLOWED = 1001, 1008  # RFC 6455, section 7.4.1
_TRY_AGAIN_LATER = 1013  # of the registry that RFC 6455 began


@dataclass(frozen=True, slots=True)
class _Look:
    """The newest messages, newest first, and how many there are, and are unread, of all."""

    entries: dict[str, CapturedEntry]
    counts: tuple[int, int]


class Live:
    """The endpoint."""

    def __init__(self, web: WebContext) -> None:
        self._web = web
        self._open = 0

    async def show(self, socket: WebSocket) -> None:
        """Send events until the client goes or the role stops."""
        if self._open >= MAX_SOCKETS:
            await socket.accept()
            await socket.close(_TRY_AGAIN_LATER)
            return
        self._open += 1
        try:
            # before the client knows that it is heard: what comes from then on is new to it
            seen = await self._web.read(self._look)
            await socket.accept()
            await self._serve(socket, seen)
        finally:
            self._open -= 1

    async def _serve(self, socket: WebSocket, seen: _Look) -> None:
        telling = asyncio.create_task(self._tell(socket, seen))
        try:
            while (await socket.receive())["type"] != "websocket.disconnect":
                pass  # clients of Mailpit say nothing
        finally:
            telling.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await telling

    async def _tell(self, socket: WebSocket, seen: _Look) -> None:
        while not self._web.arrivals.stop.is_set():
            version = self._web.arrivals.version
            if not await is_still_in(socket):
                return await socket.close(_NOT_ALLOWED)
            with contextlib.suppress(StoreUnavailable):  # the next look may do
                now = await self._web.read(self._look)
                for event in _events(seen, now):
                    await socket.send_json(event)
                seen = now
            await self._web.arrivals.after(version, timeout_s=_EVENTS_RECHECK_S)
        await socket.close(_GOING_AWAY)

    def _look(self) -> _Look:
        for _ in range(3):
            self._web.indexer.catch_up()
            counts = self._web.store.sandbox.count_captured(EVERYTHING)
            found = self._web.store.sandbox.find_captured(EVERYTHING, start=0, limit=WATCHED)
            if all(mail.facts is not None for mail in found):
                break
        # what came at this moment is told by the next look, with what its content says
        return _Look(
            {mail.entry.queue_id: mail for mail in found if mail.facts is not None}, counts
        )


def _events(seen: _Look, now: _Look) -> list[Json]:
    # what a full list does not show any more may only have been pushed down
    gone = [mail.entry.queue_id for mail in _missing(seen, now) if _order(mail) >= _end(now)]
    # and what a list shows then may be old, moved up because others went
    added = [mail for mail in _missing(now, seen) if _order(mail) >= _end(seen)]
    events = [{"Type": "new", "Data": summary_json(mail)} for mail in reversed(added)]
    events += [
        {"Type": "update", "Data": _marks(entry)}
        for queue_id, entry in now.entries.items()
        if queue_id in seen.entries and _marks(entry) != _marks(seen.entries[queue_id])
    ]
    events += [{"Type": "delete", "Data": {"ID": queue_id}} for queue_id in gone]
    if seen.counts != now.counts:
        total, unread = now.counts
        data = {"Total": total, "Unread": unread, "Version": f"relaygw {__version__}"}
        events.append({"Type": "stats", "Data": data})
    return events


def _missing(here: _Look, there: _Look) -> list[CapturedEntry]:
    return [entry for queue_id, entry in here.entries.items() if queue_id not in there.entries]


def _order(found: CapturedEntry) -> tuple[int, str]:
    return found.entry.captured_at_ms or 0, found.entry.queue_id


def _end(look: _Look) -> tuple[int, str]:
    """Return where a full list ends; one that is not full has all there is."""
    is_full = len(look.entries) == WATCHED
    return _order(next(reversed(look.entries.values()))) if is_full else (0, "")


def _marks(found: CapturedEntry) -> Json:
    entry = found.entry
    is_read = entry.read_at_ms is not None
    return {"ID": entry.queue_id, "Read": is_read, "Tags": list(found.tags)}


MAX_WAIT_S = 120.0
_TIMEOUT = f"a time like 30s, at most {MAX_WAIT_S:g}s"
DEFAULT_WAIT_S = 10.0
MAX_WAITING = 50
_PAGE = 20
_MAX_LOOKED_AT = 500  # messages that name the address as a part of another one
_WAIT_RECHECK_S = 2.0  # for what nobody is woken by: new tags
_TERMS = {"from": Field.FROM, "subject": Field.SUBJECT, "to": Field.ADDRESSED}
_PARAMETERS = ("to", "from", "subject", "query", "since", "timeout")

MAX_CODES = 20
_MAX_CHARACTERS = 64 * 1024
_NEAR_CHARACTERS = 80
_SENTENCE_END_CHARACTERS = 40  # a word of another sentence is as if it stood so far away

_CODE = re.compile(
    r"(?<![\w.,/@#:&=?%-])(?:\d{3}[ -]\d{3}|\d{4,8}|(?=[A-Z0-9-]*\d)(?=[A-Z0-9-]*[A-Z])"
    r"[A-Z0-9]{4,10}(?:-[A-Z0-9]{3,10})?)(?![\w@/%]|[.,:-]\w)"
)
_WORD = re.compile(
    r"code|kode|\bpin\b|\botp\b|\btan\b|token|verif|bestätig|confirm|kennwort|passw|"
    r"código|codice|clave|wachtwoord",
    re.IGNORECASE,
)
_OF_SOMETHING_ELSE = re.compile(
    r"(?:(?:order|invoice|customer|article|item|bestell|rechnung|auftrag|kunden|artikel|zip|plz|"
    r"tel|phone|fax)\w*|\bnr|\bno)\W{0,3}(?:(?:number|nummer|no|nr|id)\b\W{0,3})?$",
    re.IGNORECASE,
)
_AMOUNT = re.compile(r"\s?(?:€|\$|£|eur|usd|chf|gbp|euro)", re.IGNORECASE)
_AMOUNT_BEFORE = re.compile(r"(?:€|\$|£|\b(?:eur|usd|chf|gbp))\s?$", re.IGNORECASE)
_YEAR = re.compile(r"(?:19|20)\d\d")
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)")


class Wait:
    """The endpoint."""

    def __init__(self, web: WebContext) -> None:
        self._web = web
        self._waiting = 0

    async def wait(self, request: Request) -> Response:
        """Answer the newest matching message; 408 if none came within `timeout`.

        `to` is a whole address, of the envelope or of the header; `from` and `subject` are
        parts of a text; `query` is a search; `since` leaves out what was captured before.
        """
        search, to, wait_s = _wanted(request)
        if self._waiting >= MAX_WAITING:
            raise HTTPException(503, f"{MAX_WAITING} wait already", {"Retry-After": "5"})
        self._waiting += 1
        try:
            found = await self._found(request, search, to, time.monotonic() + wait_s)
        finally:
            self._waiting -= 1
        if found is None:
            raise HTTPException(408, f"no such mail within {wait_s:g} s")
        return await self._web.open(lambda: self._answer(found))

    async def _found(
        self, request: Request, search: MailSearch, to: str, until_s: float
    ) -> CapturedEntry | None:
        while True:
            version = self._web.arrivals.version
            if not await is_still_in(request):
                raise HTTPException(401, "the session has ended; log in again")
            found = await self._web.read(lambda: self._newest(search, to))
            left_s = until_s - time.monotonic()
            if found is not None or left_s <= 0 or await request.is_disconnected():
                return found
            if self._web.arrivals.stop.is_set():
                raise HTTPException(503, "the gateway stops; try again", {"Retry-After": "5"})
            await self._web.arrivals.after(version, timeout_s=min(_WAIT_RECHECK_S, left_s))

    def _newest(self, search: MailSearch, to: str) -> CapturedEntry | None:
        self._web.indexer.catch_up()
        for start in range(0, _MAX_LOOKED_AT, _PAGE):
            found = self._web.store.sandbox.find_captured(search, start=start, limit=_PAGE)
            newest = next((mail for mail in found if not to or _is_to(mail, to)), None)
            if newest is not None or len(found) < _PAGE:
                return newest
        return None

    def _answer(self, found: CapturedEntry) -> Response:
        tree = load_tree(self._web.store, found.entry)
        message = message_json(found.entry, tree, tags=found.tags)
        links = [
            {"url": link.target, "text": link.text, "where": link.where}
            for link in links_of(message, tree)
        ]
        codes = codes_of(f"{found.entry.subject}\n{message['Text']}")
        return JSONResponse({"message": message, "codes": codes, "links": links})


def _wanted(request: Request) -> tuple[MailSearch, str, float]:
    given = request.query_params
    unknown = set(given) - set(_PARAMETERS)
    if unknown:
        name = min(unknown)[:40]
        known = ", ".join(sorted(_PARAMETERS))
        raise Problem(400, f"parameter {name!r} is not known", expected=known)
    search = parse_search(given.get("query", ""))
    if search.mistake is not None:
        raise Problem(400, f"query: {search.mistake.what}", expected=search.mistake.expected)
    to = given.get("to", "").strip().lower()
    terms = list(search.terms)
    for name, field in _TERMS.items():
        if to if name == "to" else given.get(name):
            terms.append(Term(field=field, text=_part(given, name)))
    if since := given.get("since"):
        at_ms = read_time_ms(since, UTC)
        if at_ms is None:
            expected = "one like 2026-01-31T12:00:00Z"
            raise Problem(400, f"since {since[:40]!r} is not a time", expected=expected)
        terms.append(Term(field=Field.AFTER, number=at_ms))
    if not terms:
        raise Problem(400, "nothing to wait for", expected="to, from, subject or query")
    return MailSearch(terms=tuple(terms)), to, _wait_s(given.get("timeout", ""))


def _part(given: Mapping[str, str], name: str) -> str:
    part = searchable(given[name][:MAX_CHARACTERS])
    if not part:
        raise _unfit(name, given[name])
    return part


def _unfit(name: str, value: str) -> Problem:
    expected = f"a word or more, at most {MAX_CHARACTERS} characters and {MAX_TERMS} terms"
    return Problem(400, f"{name} {value[:40]!r} is too long, or has no word", expected=expected)


def _wait_s(value: str) -> float:
    try:
        wait_s = parse_duration(value) if value else DEFAULT_WAIT_S
    except ValueError as error:
        raise Problem(400, f"timeout {value[:40]!r} {error}", expected=_TIMEOUT) from None
    if wait_s > MAX_WAIT_S:
        raise Problem(400, f"timeout {value[:40]!r} is too long", expected=_TIMEOUT)
    return wait_s


def _is_to(found: CapturedEntry, address: str) -> bool:
    """True when the address stands whole in the envelope, or in To, Cc or Bcc."""
    facts = found.facts or ContentFacts()
    named = [contact["Address"] for contact in (*facts.to, *facts.cc, *facts.bcc)]
    for recipient in found.entry.recipients:
        named += (recipient.address, recipient.original or "")
    return address in map(str.lower, named)


def codes_of(text: str) -> list[str]:
    """Return the possible codes of a text, each once: those near a word such as "code" first.

    Numbers of orders and amounts come after them, years last.
    """
    text = text[:_MAX_CHARACTERS]
    words = [match.span() for match in _WORD.finditer(text)]
    ranked = sorted(
        (_rank(text, *match.span(), words), match.start(), match[0])
        for match in _CODE.finditer(text)
    )
    codes = (re.sub(r"(?<=\d)[ -](?=\d)", "", code) for _, _, code in ranked)
    return list(dict.fromkeys(codes))[:MAX_CODES]


def _rank(text: str, start: int, end: int, words: list[tuple[int, int]]) -> int:
    """Return how unlikely a code is: below `_NEAR_CHARACTERS` by its distance to a word."""
    before, after = text[max(0, start - 40) : start], text[end : end + 6]
    distance = _distance(text, start, end, words)
    if _YEAR.fullmatch(text[start:end]) and distance > 3:
        return 3 * _NEAR_CHARACTERS
    is_amount = _AMOUNT.match(after) or _AMOUNT_BEFORE.search(before)
    if is_amount or _OF_SOMETHING_ELSE.search(before):
        return 2 * _NEAR_CHARACTERS
    return min(distance, _NEAR_CHARACTERS)


def _distance(text: str, start: int, end: int, words: list[tuple[int, int]]) -> int:
    """Return the characters between a code and the nearest word before or after it."""
    following = bisect_left(words, (start, start))
    gaps = []
    if following > 0:
        gaps.append(text[words[following - 1][1] : start][-_NEAR_CHARACTERS:])
    if following < len(words):
        gaps.append(text[end : words[following][0]][:_NEAR_CHARACTERS])
    return min(
        (len(gap) + (_SENTENCE_END_CHARACTERS if _SENTENCE_END.search(gap) else 0) for gap in gaps),
        default=_NEAR_CHARACTERS,
    )
