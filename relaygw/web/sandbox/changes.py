"""Changes of captured mail from the pages: read, unread, tags, delete, and release.

What touches more than was ticked, and what cannot be taken back, asks first and says how many.
What a release does is decided by `operations.captured`; an address outside of the allow list is
reached only if an admin was shown that very address and confirmed it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.clock import clock_ms
from relaygw.operations.captured import (
    Copy,
    ReleaseRequest,
    ReleaseResult,
    delete_captured,
    plan_release,
    release_captured,
)
from relaygw.web import words
from relaygw.web.context import WebContext, is_queue_id
from relaygw.web.gate.identity import Principal, Role, require
from relaygw.web.inbox import action_of
from relaygw.web.page import redirect, render, with_notice
from relaygw.web.sandbox.captured import MAX_TAG_CHARACTERS, MAX_TAGS, captured_of
from relaygw.web.sandbox.inbox import CapturedChoice, list_path, read_choice

_DONE = {"read": "read", "unread": "unread", "delete": "deleted", "tag": "tagged",
         "untag": "tagged", "settags": "tagged"}  # fmt: skip
_ASKING = {
    "read": ("Mark {} as read?", "Mark as read"),
    "unread": ("Mark {} as unread?", "Mark as unread"),
    "delete": ("Delete {} for good?", "Delete"),
    "tag": ("Tag {}?", "Tag"),
    "untag": ("Take tags off {}?", "Take off"),
}


class Bulk:
    """The endpoint of the forms around the list."""

    def __init__(self, web: WebContext, release: ReleasePage) -> None:
        self._web = web
        self._release = release

    async def change(self, request: Request) -> Response:
        """Do what a form asks for, or ask whether that is meant."""
        principal = require(request, Role.OPERATOR)
        form = await request.form()
        choice = read_choice(form)
        action = action_of(form)
        if action not in (*_DONE, "release"):
            raise HTTPException(400, f"action {action[:40]!r} is none of {', '.join(_DONE)}")
        if choice.is_empty:
            return redirect(request, choice.back_path(form))
        if action == "release":
            return await self._release.ask(request, choice)
        tags = _tags(form)
        must_ask = action == "delete" or choice.is_all
        if must_ask and form.get("confirmed") != "1":
            return await self._ask(request, choice, action, form)
        change = self._change_of(action, tags, principal, choice)
        web = self._web
        number = await web.change(lambda: sum(map(change, choice.batches(web))))
        return redirect(request, with_notice(choice.back_path(form), _DONE[action], number))

    async def _ask(
        self, request: Request, choice: CapturedChoice, action: str, form: FormData
    ) -> Response:
        number = await self._web.read(lambda: choice.count(self._web))
        question, verb = _ASKING[action]
        context: dict[str, Any] = {
            **self._web.page_context,
            "question": question.format(words.counted(number, "message")),
            "verb": f"{verb} {words.counted(number, 'message')}",
            "number": number,
            "action": action,
            "is_danger": action == "delete",
            "choice": choice,
            "tags": ", ".join(_tags(form)),
            "back": choice.back_path(form),
        }
        return render(request, "confirm.html", context)

    def _change_of(
        self, action: str, tags: list[str], principal: Principal, choice: CapturedChoice
    ) -> Callable[[list[str]], int]:
        """Return what changes a batch of messages and returns how many changed."""
        store = self._web.store
        now = clock_ms()

        def delete(ids: list[str]) -> int:
            done = delete_captured(
                store, ids, actor=principal.name, now_ms=now, detail=choice.words()
            )
            return len(done.changed)

        def mark(ids: list[str]) -> int:
            store.sandbox.mark_read(ids, at_ms=now if action == "read" else None)
            return len(ids)

        def retag(ids: list[str]) -> int:
            if action == "settags":
                store.sandbox.set_tags(ids, tags)
                return len(ids)
            for queue_id in ids:
                self._retag_one(queue_id, tags, is_added=action == "tag")
            return len(ids)

        return {"delete": delete, "read": mark, "unread": mark}.get(action, retag)

    def _retag_one(self, queue_id: str, tags: list[str], *, is_added: bool) -> None:
        found = self._web.store.sandbox.captured_entry(queue_id)
        if found is None:
            return
        taken = {tag.lower() for tag in tags}
        kept = [tag for tag in found.tags if tag.lower() not in taken]
        self._web.store.sandbox.set_tags([queue_id], [*kept, *tags] if is_added else kept)


def _tags(form: FormData) -> list[str]:
    """Return the tags of a form: separated by commas, each once, within limits."""
    given = str(form.get("tags", "")).split(",")
    cleaned = (" ".join(tag.split())[:MAX_TAG_CHARACTERS] for tag in given)
    return list(dict.fromkeys(tag for tag in cleaned if tag))[:MAX_TAGS]


MAX_RELEASED = 500
"""Messages in one release from a page."""
MAX_CONFIRMED = 200
"""Addresses outside of the allow list in one release."""
_MAX_LINES = 50


class ReleasePage:
    """The endpoints of releases."""

    def __init__(self, web: WebContext) -> None:
        self._web = web

    async def show(self, request: Request) -> Response:
        """Show who would get one message."""
        require(request, Role.OPERATOR)
        found = await self._web.read(lambda: captured_of(self._web, request))
        choice = CapturedChoice(ids=(found.entry.queue_id,))
        return await self.ask(request, choice)

    async def release_chosen(self, request: Request) -> Response:
        """Show the plan for another address, or carry out what was confirmed."""
        principal = require(request, Role.OPERATOR)
        form = await request.form()
        choice = _choice(request, form)
        if choice.is_empty:
            raise HTTPException(400, "no message was named; tick some in the list")
        to = str(form.get("to", "")).strip()[:1000]
        if form.get("confirmed") != "1":
            return await self.ask(request, choice, to=to)
        result = await self._web.change(lambda: self._carry_out(choice, form, to, principal))
        context = self._context(choice, result.copies, result)
        return render(request, "released.html", {**context, "messages": len(result.changed)})

    def _carry_out(
        self, choice: CapturedChoice, form: FormData, to: str, principal: Principal
    ) -> ReleaseResult:
        wanted = ReleaseRequest(
            to=to or None,
            is_admin=principal.is_admin,
            anyone=form.get("anyone") == "1",
            confirmed=[str(value) for value in form.getlist("address")][:MAX_CONFIRMED],
        )
        released = release_captured(
            self._web.store,
            self._web.settings,
            self._ids(choice),
            wanted,
            actor=principal.name,
            now_ms=clock_ms(),
            detail=choice.words(),
        )
        self._web.wake_workers()
        return released

    def _ids(self, choice: CapturedChoice) -> list[str]:
        ids = (queue_id for batch in choice.batches(self._web) for queue_id in batch)
        return list(islice(ids, MAX_RELEASED))

    async def ask(self, request: Request, choice: CapturedChoice, *, to: str = "") -> Response:
        """Show who would get the chosen messages, at `to` instead of those they were for."""
        problem = ""
        principal = require(request, Role.OPERATOR)
        number = await self._web.read(lambda: choice.count(self._web))
        if number > MAX_RELEASED:
            problem = (
                f"{words.counted(number, 'message')} are too many for one release; at most "
                f"{MAX_RELEASED} at a time: narrow the search, or use relaygw sandbox release"
            )
            planned = ReleaseResult()
        else:
            planned = await self._web.open(lambda: self._planned(choice, to, principal))
        copies = [one for one in planned.copies if one.address not in planned.outside]
        return render(
            request,
            "release.html",
            {
                **self._context(choice, copies, planned),
                "number": number,
                "to": to,
                "problem": problem,
                "outside": planned.outside[:MAX_CONFIRMED],
                "outside_copies": len(planned.copies) - len(copies),
                "outside_left": max(0, len(planned.outside) - MAX_CONFIRMED),
            },
        )

    def _planned(self, choice: CapturedChoice, to: str, principal: Principal) -> ReleaseResult:
        wanted = ReleaseRequest(to=to or None, is_admin=principal.is_admin, anyone=True)
        return plan_release(self._web.store, self._web.settings, self._ids(choice), wanted)

    def _context(
        self, choice: CapturedChoice, copies: Sequence[Copy], result: ReleaseResult
    ) -> dict[str, Any]:
        """Return what a plan and its outcome both show."""
        is_one = len(choice.ids) == 1
        return {
            **self._web.page_context,
            "choice": choice,
            "copies": len(copies),
            "going": _lines((one.address, one.captured, f"by route {one.route}") for one in copies),
            "refused": _lines((one.address, one.captured, one.why) for one in result.refused),
            "left": _lines(("", "", one.why) for one in result.left),
            "back": f"/sandbox/{choice.ids[0]}" if is_one else list_path(choice.query),
        }


def _choice(request: Request, form: FormData) -> CapturedChoice:
    """Return the message that the path names, else what the form is about."""
    queue_id = request.path_params.get("queue_id")
    if queue_id is None:
        return read_choice(form)
    if not is_queue_id(queue_id):
        raise HTTPException(404)
    return CapturedChoice(ids=(queue_id,))


def _lines(found: Iterable[tuple[str, str, str]]) -> list[dict[str, Any]]:
    numbers: dict[tuple[str, str, str], int] = {}
    for address, captured, why in found:
        key = (address, captured if captured != address else "", why)
        numbers[key] = numbers.get(key, 0) + 1
    return [
        {
            "address": address,
            "captured": captured,  # whom it was for, "" when that is the same
            "words": why,
            "number": number,
        }
        for (address, captured, why), number in islice(numbers.items(), _MAX_LINES)
    ]
