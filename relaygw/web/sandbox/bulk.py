"""Changes of many messages: read, unread, tags, delete; release has a page of its own.

What touches more than was ticked, and what cannot be taken back, asks first and says how many.
All that a search finds ends at the newest message that there was when somebody looked, so that
nothing is deleted or released that nobody has seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.clock import clock_ms
from relaygw.operations.captured import delete_captured
from relaygw.web import words
from relaygw.web.context import WebContext
from relaygw.web.gate.identity import Principal, Role, require
from relaygw.web.inbox import action_of
from relaygw.web.page import redirect, render, with_notice
from relaygw.web.sandbox.captured import MAX_TAG_CHARACTERS, MAX_TAGS
from relaygw.web.sandbox.inbox import CapturedChoice, read_choice
from relaygw.web.sandbox.release import ReleasePage

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
