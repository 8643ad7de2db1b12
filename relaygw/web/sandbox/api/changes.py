"""What Mailpit's API changes in the sandbox: read marks, tags, deletion, release.

Nothing here touches mail that waits to be sent. A list of ids that is empty means all captured
mail, as in Mailpit; that includes nothing that is captured after the request came in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from relaygw.mail.clock import clock_ms
from relaygw.mail.search import EVERYTHING, MailSearch, tag_key
from relaygw.operations.captured import (
    ReleaseRequest,
    ReleaseResult,
    delete_captured,
    plan_release,
    release_captured,
)
from relaygw.web.api.json_body import Found, flag, read_object, strings, text
from relaygw.web.context import WebContext, is_queue_id
from relaygw.web.gate.identity import Principal, Role, require
from relaygw.web.sandbox.api.messages import found_by, found_ids, query_of, search_of
from relaygw.web.sandbox.captured import MAX_TAG_CHARACTERS, MAX_TAGS

MAX_TARGETS = 50
OK = "ok"
# what pages part tags by, and what neither a database nor UTF-8 takes
_UNFIT = re.compile(r"[,\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


class Changes:
    """The endpoints; all need the role operator."""

    def __init__(self, web: WebContext) -> None:
        self._web = web

    async def mark(self, request: Request) -> Response:
        """Mark messages as read, or as unread: those named, those that `Search` finds, or all."""
        require(request, Role.OPERATOR)
        body = await read_object(request)
        ids, query = _ids(body), text(body, "Search").strip()
        if ids is not None and query:
            raise HTTPException(400, "write IDs or Search, not both")
        search = search_of(request, query) if query else None
        at_ms = clock_ms() if flag(body, "Read") else None

        def change() -> None:
            chosen = ids if search is None else found_ids(self._web, search)
            self._web.store.sandbox.mark_read(chosen, at_ms=at_ms)

        await self._web.change(change)
        return PlainTextResponse(OK)

    async def delete(self, request: Request) -> Response:
        """Delete the messages that the body names, without any all of them."""
        principal = require(request, Role.OPERATOR)
        ids = _ids(await read_object(request))
        if ids is None:
            await self._web.change(lambda: self._delete_found(EVERYTHING, principal, "api, all"))
        else:
            await self._web.change(lambda: self._delete(ids, principal, "api"))
        return PlainTextResponse(OK)

    async def delete_found(self, request: Request) -> Response:
        """Delete what a search finds."""
        principal = require(request, Role.OPERATOR)
        query = query_of(request)
        search, detail = search_of(request, query), f"api, search: {query[:200]}"
        await self._web.change(lambda: self._delete_found(search, principal, detail))
        return PlainTextResponse(OK)

    async def set_tags(self, request: Request) -> Response:
        """Give messages exactly the tags of the body."""
        require(request, Role.OPERATOR)
        body = await read_object(request)
        ids, tags = _ids(body), clean_tags(strings(body, "Tags"))
        if ids is None:
            raise HTTPException(400, "IDs is empty; name the messages to tag")
        await self._web.change(lambda: self._web.store.sandbox.set_tags(ids, tags))
        return PlainTextResponse(OK)

    async def rename_tag(self, request: Request) -> Response:
        """Give a tag another name everywhere."""
        require(request, Role.OPERATOR)
        old = request.path_params["tag"]
        new = clean_tag(text(await read_object(request), "Name"))
        if not await self._web.change(lambda: self._web.store.sandbox.rename_tag(old, new)):
            raise HTTPException(404)
        return PlainTextResponse(OK)

    async def delete_tag(self, request: Request) -> Response:
        """Take a tag off all messages."""
        require(request, Role.OPERATOR)
        tag = request.path_params["tag"]
        if not await self._web.change(lambda: self._web.store.sandbox.delete_tag(tag)):
            raise HTTPException(404)
        return PlainTextResponse(OK)

    def _delete(self, ids: list[str], principal: Principal, detail: str) -> None:
        delete_captured(
            self._web.store, ids, actor=principal.name, now_ms=clock_ms(), detail=detail
        )

    def _delete_found(self, search: MailSearch, principal: Principal, detail: str) -> None:
        self._delete(found_ids(self._web, search), principal, detail)

    async def release_message(self, request: Request) -> Response:
        """Send a message to the addresses `To`: to all of them, or to none with 400.

        Who is not on the allow list gets it only if an admin says `"Anyone": true` as well.
        """
        principal = require(request, Role.OPERATOR)
        body = await read_object(request)
        addresses = list({one.lower(): one for one in strings(body, "To")}.values())
        if not addresses:
            raise HTTPException(400, "To is empty; name the addresses to release it to")
        if len(addresses) > MAX_TARGETS:
            raise HTTPException(400, f"To has more than {MAX_TARGETS} addresses")
        anyone = flag(body, "Anyone")
        await self._web.change(lambda: self._release(request, addresses, principal, anyone))
        return PlainTextResponse(OK)

    def _release(
        self, request: Request, addresses: list[str], principal: Principal, anyone: bool
    ) -> None:
        store, settings = self._web.store, self._web.settings
        ids = [found_by(self._web, request).entry.queue_id]
        all_wanted = [
            ReleaseRequest(to=to, is_admin=principal.is_admin, anyone=anyone) for to in addresses
        ]
        problems = [
            problem
            for wanted in all_wanted
            for problem in _problems(wanted, plan_release(store, settings, ids, wanted))
        ]
        if problems:
            raise HTTPException(400, "; ".join(problems))
        for wanted in all_wanted:
            done = release_captured(
                store,
                settings,
                ids,
                wanted,
                actor=principal.name,
                now_ms=clock_ms(),
                detail="api",
            )
            if problems := _problems(wanted, done):
                raise HTTPException(409, "; ".join(problems))  # it changed since it was planned


def _ids(body: Found) -> list[str] | None:
    """Return the ids of a body, None for all; what is no id is of no message, and is left out."""
    given = strings(body, "IDs")
    return [one for one in given if is_queue_id(one)] if given else None


def clean_tag(given: str) -> str:
    """Return a tag without what does not belong into one."""
    tag = " ".join(_UNFIT.sub(" ", given).split())
    if not tag_key(tag) or len(tag) > MAX_TAG_CHARACTERS:
        raise HTTPException(400, f"a tag has 1 to {MAX_TAG_CHARACTERS} characters")
    return tag


def clean_tags(given: Iterable[str]) -> list[str]:
    """Return tags, each once."""
    tags = list(dict.fromkeys(map(clean_tag, given)))
    if len(tags) > MAX_TAGS:
        raise HTTPException(400, f"{len(tags)} tags are too many; a message has up to {MAX_TAGS}")
    return tags


def _problems(wanted: ReleaseRequest, result: ReleaseResult) -> list[str]:
    """Return why a message does not go out as wished; nothing if it does."""
    whys = [one.why for one in result.refused] + [one.why for one in result.left]
    return [f"{wanted.to}: {why}" for why in whys]
