"""`/view`: a message as a page or as text at an address that tests know from Mailpit."""

from __future__ import annotations

import re

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from relaygw.web.context import Desk
from relaygw.web.mail.content import FRAME_HEADERS, MailPages
from relaygw.web.mail.mime_tree import load_tree
from relaygw.web.sandbox.api.reading import LATEST, found_by, message_of

_PLACEHOLDER = re.compile(r'href="#relaygw-link" title="((?:https?|mailto):[^"]*)"')


def with_links(document: str) -> str:
    """Return a document of `mail_page` with links that lead where they say.

    Nobody goes there by looking at it; tests look for the addresses, or click.
    """
    return _PLACEHOLDER.sub(r'href="\1" rel="noopener noreferrer"', document)


class Views:
    """The endpoints."""

    def __init__(self, desk: Desk, mail_pages: MailPages) -> None:
        self._desk = desk
        self._mail_pages = mail_pages

    async def show_latest(self, request: Request) -> Response:
        """Lead to the page of the newest message."""
        request.path_params["queue_id"] = LATEST
        found = await self._desk.read(lambda: found_by(self._desk, request))
        root_path: str = request.scope.get("root_path", "")
        return RedirectResponse(f"{root_path}/sandbox/{found.entry.queue_id}", status_code=302)

    async def show_html(self, request: Request) -> Response:
        """Answer the HTML of a message as the frame of its page has it, but with its links."""

        def make() -> Response:
            entry = found_by(self._desk, request).entry
            page = self._mail_pages.make(entry, load_tree(self._desk.store, entry))
            if page is None:
                raise HTTPException(404)
            return HTMLResponse(with_links(page.document), headers=FRAME_HEADERS)

        return await self._desk.open(make)

    async def show_text(self, request: Request) -> Response:
        """Answer the text of a message."""

        def read() -> Response:
            found = found_by(self._desk, request)
            return PlainTextResponse(
                message_of(found, load_tree(self._desk.store, found.entry))["Text"]
            )

        return await self._desk.open(read)
