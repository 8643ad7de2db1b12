"""The audit trail as pages: who did what, as sentences."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.clock import clock_ms, utc_time
from relaygw.operations.audit import KINDS, deed_of
from relaygw.store.audit import AuditEntry, Trail
from relaygw.web.context import WebContext, reads
from relaygw.web.page import render
from relaygw.web.queue.selection import WrongValue, read_value, read_word

PAGE_ENTRIES = 100
_MAX_PAGE = 10_000
_NAMES = ("who", "action", "since", "until")


@reads
def show_audit(web: WebContext, request: Request) -> Response:
    """Show a page of the audit trail, newest first."""
    query, now_ms = request.query_params, clock_ms()
    given = {name: read_word(name, query.get(name, "")) for name in _NAMES}
    times: dict[str, int] = {}
    wrong: dict[str, WrongValue] = {}
    for name in filter(given.get, ("since", "until")):
        try:
            times[name] = read_value(name, given[name], now_ms)
        except WrongValue as error:
            wrong[name] = error
    trail = Trail(
        since_ms=times.get("since"),
        until_ms=times.get("until"),
        actor=given["who"] or None,
        action=given["action"] or None,
    )
    asked = query.get("page", "1")
    page = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 6 else 1
    page = min(max(page, 1), _MAX_PAGE)
    start = (page - 1) * PAGE_ENTRIES
    entries: list[AuditEntry] = []
    if not wrong:
        entries = web.store.audit.entries(limit=PAGE_ENTRIES + 1, start=start, trail=trail)
    context = {
        "deeds_found": [make_deed(entry) for entry in entries[:PAGE_ENTRIES]],
        "given": given,
        "wrong": wrong,
        "kinds": _kinds(given["action"]),
        "zone": utc_time(now_ms).astimezone().tzname(),
        "page": page,
        "has_more": len(entries) > PAGE_ENTRIES,
        "page_path": lambda number: _path(given, page=number if number > 1 else ""),
    }
    status = 400 if wrong else 200
    return render(request, "audit.html", context, mode=web.mode, status_code=status)


def make_deed(entry: AuditEntry, *, on: str = "") -> dict[str, Any]:
    """Return a line of the trail; `on` the page of a message it names others only."""
    return {"entry": entry, "deed": deed_of(entry, on=on)}


def _kinds(chosen: str) -> list[str]:
    """Return the actions to choose from: groups, then each; and what was asked for."""
    groups = sorted({kind.partition(".")[0] for kind in KINDS})
    return list(dict.fromkeys([*groups, *KINDS, *filter(None, [chosen])]))


def _path(given: dict[str, str], **more: object) -> str:
    words = {name: value for name, value in {**given, **more}.items() if value}
    return f"/audit?{urlencode(words)}" if words else "/audit"
