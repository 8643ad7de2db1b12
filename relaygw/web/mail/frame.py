"""The HTML of a message as a document of its own, for the frame of its page.

It is as harmless when somebody opens it in a tab: `sandbox` in its policy takes its origin and
all rights, and nothing but pictures in the document itself is loaded.
"""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from relaygw.store.protocol import QueueEntry
from relaygw.web.context import Desk, Find
from relaygw.web.mail.contents import MailPages
from relaygw.web.mail.html_page import MailPage

FRAME_HEADERS = {
    "Content-Security-Policy": (
        "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
    ),
    "X-DNS-Prefetch-Control": "off",
}


class Frame:
    """The endpoint of that document, for messages as `find` knows them."""

    def __init__(self, desk: Desk, mail_pages: MailPages, find: Find) -> None:
        self._desk = desk
        self._mail_pages = mail_pages
        self._find = find

    async def show(self, request: Request) -> Response:
        """Answer the document; 404 for a message without HTML."""
        entry = await self._desk.read(lambda: self._find(request))
        page = self._mail_pages.get(entry.queue_id)
        if page is None:
            page = await self._desk.open(lambda: self._make(entry))
        return HTMLResponse(page.document, headers=FRAME_HEADERS)

    def _make(self, entry: QueueEntry) -> MailPage:
        page = self._mail_pages.make(entry, self._desk.tree(entry))
        if page is None:
            raise HTTPException(404)
        return page
