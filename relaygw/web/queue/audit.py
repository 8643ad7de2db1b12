"""What operators did: all of it, newest first, or what concerns one message."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.clock import clock_ms
from relaygw.store.audit import AuditEntry
from relaygw.web import words
from relaygw.web.context import WebContext, is_queue_id
from relaygw.web.page import render

MAX_ENTRIES = 500
_SHOWN_TARGETS = 3
_MAX_DETAIL_CHARACTERS = 400


class AuditPage:
    """The endpoint of the whole trail."""

    def __init__(self, web: WebContext) -> None:
        self._web = web

    async def show(self, request: Request) -> Response:
        """Show the newest lines of the trail."""
        store = self._web.store
        entries = await self._web.read(lambda: store.audit.entries(limit=MAX_ENTRIES))
        now = clock_ms()
        context = {
            **self._web.page_context,
            "deeds_found": deeds_of(entries, now=now),
            "is_cut": len(entries) == MAX_ENTRIES,
        }
        return render(request, "audit.html", context)


def deeds_of(entries: Iterable[AuditEntry], *, now: int) -> list[dict[str, Any]]:
    """Return lines of the trail as a page shows them."""
    return [_deed(entry, now) for entry in entries]


def _deed(entry: AuditEntry, now: int) -> dict[str, Any]:
    targets = entry.target.split() if " " in entry.target else [entry.target]
    is_list = all(is_queue_id(one) for one in targets)
    shown = targets[:_SHOWN_TARGETS] if is_list else [entry.target]
    return {
        **words.moment(entry.at_ms, now),
        "actor": entry.actor,
        "action": entry.action,
        "targets": [(one, is_list) for one in shown if one],  # and whether it is a message
        "more": len(targets) - len(shown) if is_list else 0,
        "affected": entry.affected,
        "detail": entry.detail[:_MAX_DETAIL_CHARACTERS],
    }
