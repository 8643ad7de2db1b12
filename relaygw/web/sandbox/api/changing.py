"""What Mailpit's API changes in the sandbox: read marks, tags, deletion.

Nothing here touches mail that waits to be sent. A list of ids that is empty means all captured
mail, as in Mailpit; that includes nothing that is captured after the request came in.
"""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from relaygw.mail.search import EVERYTHING, MailSearch
from relaygw.operations.captured import delete_captured
from relaygw.web import words
from relaygw.web.api.json_body import Found, flag, read_object, strings, text
from relaygw.web.context import Desk, is_queue_id
from relaygw.web.gate.identity import Principal, Role, require
from relaygw.web.sandbox.api.asked import query_of, search_of
from relaygw.web.sandbox.api.reading import found_ids
from relaygw.web.sandbox.api.tags import clean_tag, clean_tags

OK = "ok"


class Changing:
    """The endpoints that need the role operator."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def mark(self, request: Request) -> Response:
        """Mark messages as read, or as unread: those named, those that `Search` finds, or all."""
        require(request, Role.OPERATOR)
        body = await read_object(request)
        ids, query = _ids(body), text(body, "Search").strip()
        if ids is not None and query:
            raise HTTPException(400, "write IDs or Search, not both")
        search = search_of(request, query) if query else None
        at_ms = words.now_ms() if flag(body, "Read") else None

        def change() -> None:
            chosen = ids if search is None else found_ids(self._desk, search)
            self._desk.store.mark_read(chosen, at_ms=at_ms)

        await self._desk.change(change)
        return PlainTextResponse(OK)

    async def delete(self, request: Request) -> Response:
        """Delete the messages that the body names, without any all of them."""
        principal = require(request, Role.OPERATOR)
        ids = _ids(await read_object(request))
        if ids is None:
            await self._desk.change(lambda: self._delete_found(EVERYTHING, principal, "api, all"))
        else:
            await self._desk.change(lambda: self._delete(ids, principal, "api"))
        return PlainTextResponse(OK)

    async def delete_found(self, request: Request) -> Response:
        """Delete what a search finds."""
        principal = require(request, Role.OPERATOR)
        query = query_of(request)
        search, detail = search_of(request, query), f"api, search: {query[:200]}"
        await self._desk.change(lambda: self._delete_found(search, principal, detail))
        return PlainTextResponse(OK)

    async def set_tags(self, request: Request) -> Response:
        """Give messages exactly the tags of the body."""
        require(request, Role.OPERATOR)
        body = await read_object(request)
        ids, tags = _ids(body), clean_tags(strings(body, "Tags"))
        if ids is None:
            raise HTTPException(400, "IDs is empty; name the messages to tag")
        await self._desk.change(lambda: self._desk.store.set_tags(ids, tags))
        return PlainTextResponse(OK)

    async def rename_tag(self, request: Request) -> Response:
        """Give a tag another name everywhere."""
        require(request, Role.OPERATOR)
        old = request.path_params["tag"]
        new = clean_tag(text(await read_object(request), "Name"))
        if not await self._desk.change(lambda: self._desk.store.rename_tag(old, new)):
            raise HTTPException(404)
        return PlainTextResponse(OK)

    async def delete_tag(self, request: Request) -> Response:
        """Take a tag off all messages."""
        require(request, Role.OPERATOR)
        tag = request.path_params["tag"]
        if not await self._desk.change(lambda: self._desk.store.delete_tag(tag)):
            raise HTTPException(404)
        return PlainTextResponse(OK)

    def _delete(self, ids: list[str], principal: Principal, detail: str) -> None:
        delete_captured(
            self._desk.store, ids, actor=principal.name, now_ms=words.now_ms(), detail=detail
        )

    def _delete_found(self, search: MailSearch, principal: Principal, detail: str) -> None:
        self._delete(found_ids(self._desk, search), principal, detail)


def _ids(body: Found) -> list[str] | None:
    """Return the ids of a body, None for all; what is no id is of no message, and is left out."""
    given = strings(body, "IDs")
    return [one for one in given if is_queue_id(one)] if given else None
