"""One queued message: its story, its recipients and what was said of each, its content, its audit.

Nothing is marked by looking; what may be done about it depends on its state.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.clock import clock_ms
from relaygw.mail.state import RecipientState
from relaygw.operations.queue_actions import ACTIONS
from relaygw.operations.queue_object import leading_delivery
from relaygw.operations.story import tell_story
from relaygw.store.queue_entry import QueueEntry
from relaygw.web import words
from relaygw.web.context import WebContext
from relaygw.web.mail.html_page import MailPages
from relaygw.web.mail.mime_tree import load_tree
from relaygw.web.mail.views import VIEWS, view_context
from relaygw.web.page import notice_of, render
from relaygw.web.queue.audit import deeds_of
from relaygw.web.queue.list import TONES, shown_state
from relaygw.web.queue.selection import queued_of

STORY = "story"
MAX_RECIPIENTS = 200
_TONES = {
    RecipientState.PENDING: "waiting",
    RecipientState.DELIVERED: "sent",
    RecipientState.BOUNCED: "failed",
    RecipientState.EXPIRED: "failed",
    RecipientState.CAPTURED: "captured",
    RecipientState.BLOCKED: "failed",
    RecipientState.CANCELLED: "captured",
}


class QueueMessagePage:
    """The endpoint of a message."""

    def __init__(self, web: WebContext, mail_pages: MailPages) -> None:
        self._web = web
        self._mail_pages = mail_pages

    async def show(self, request: Request) -> Response:
        """Show the story of a message, or a view of its content."""
        entry = await self._web.read(lambda: queued_of(self._web, request))
        wanted = request.query_params.get("view", STORY)
        context = await self._web.read(lambda: self._context(entry))
        if wanted in VIEWS and entry.chunk_count:
            context |= await self._web.open(lambda: self._content(entry, wanted))
        context["notice"] = notice_of(request.query_params)
        return render(request, "queue_message.html", context)

    def _context(self, entry: QueueEntry) -> dict[str, Any]:
        store, settings, now = self._web.store, self._web.settings, clock_ms()
        leading = leading_delivery(entry)
        states = {part.state for part in entry.deliveries}
        record = store.queue.record_of(entry.queue_id)
        path = f"/queue/{entry.queue_id}"
        return {
            **self._web.page_context,
            "story": tell_story(store, settings, entry.queue_id, now_ms=now),  # None: just gone
            "iso_time": words.iso_time,
            "exact_time": words.exact_time,
            "clock_time": lambda at_ms: words.clock_time(at_ms, now),
            "until": lambda at_ms: words.until(at_ms, now),
            "entry": entry,
            "state": shown_state(entry),
            "tone": TONES[leading.state],
            "leading": leading,
            "fates": _fates(entry, now=now)[:MAX_RECIPIENTS],
            "fates_left": max(0, len(entry.recipients) - MAX_RECIPIENTS),
            "size": words.size(entry.size_bytes),
            "accepted": words.exact_time(entry.accepted_at_ms),
            "accepted_iso": words.iso_time(entry.accepted_at_ms),
            "actions": [one for one in ACTIONS.values() if one.from_states & states],
            "audit": deeds_of(reversed(record.actions), now=now),
            "view": STORY,
            "has_content": bool(entry.chunk_count),
            "views": VIEWS,
            "mail_path": path,
            "view_path": lambda view: path if view == STORY else f"{path}?view={view}",
        }

    def _content(self, entry: QueueEntry, wanted: str) -> dict[str, Any]:
        tree = load_tree(self._web.store, entry)
        page = self._mail_pages.make(entry, tree)
        view = "text" if wanted == "html" and page is None else wanted
        return {"view": view, **view_context(view, tree, page)}


def _fates(entry: QueueEntry, *, now: int) -> list[dict[str, Any]]:
    """Return the recipients of a message, those who wait first."""
    routes = {part.delivery_no: part.route for part in entry.deliveries}
    ordered = sorted(entry.recipients, key=lambda one: one.state is not RecipientState.PENDING)
    return [
        {
            "address": one.address,
            "original": words.given_as(one),
            "state": one.state.value,
            "tone": _TONES[one.state],
            "provider": one.provider or "",
            "reply": one.reply or "",
            "at": words.age(one.changed_at_ms, now),
            "route": routes.get(one.delivery_no, ""),
            "attempts": one.attempts,
        }
        for one in ordered
    ]
