"""Changes of many messages: read, unread, tags, delete; release has a page of its own.

What touches more than was ticked, and what cannot be taken back, asks first and says how many.
All that a search finds ends at the newest message that there was when somebody looked, so that
nothing is deleted or released that nobody has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.search import Field, MailSearch, Term
from relaygw.operations.captured import delete_captured
from relaygw.web import words
from relaygw.web.context import Desk, is_queue_id
from relaygw.web.gate.identity import Principal, Role, require
from relaygw.web.page import redirect, render, with_notice
from relaygw.web.sandbox.captured import MAX_TAG_CHARACTERS, MAX_TAGS, read_search
from relaygw.web.sandbox.inbox import MAX_QUERY_CHARACTERS, list_path
from relaygw.web.sandbox.release import ReleasePage

BATCH_IDS = 500
MAX_TICKED = 1000

_DONE = {"read": "read", "unread": "unread", "delete": "deleted", "tag": "tagged",
         "untag": "tagged", "settags": "tagged"}  # fmt: skip
_ASKING = {
    "read": ("Mark {} as read?", "Mark as read"),
    "unread": ("Mark {} as unread?", "Mark as unread"),
    "delete": ("Delete {} for good?", "Delete"),
    "tag": ("Tag {}?", "Tag"),
    "untag": ("Take tags off {}?", "Take off"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Ticked messages, or, without any, those found by `query` up to the id `until`."""

    ids: tuple[str, ...]
    query: str
    until: str

    @property
    def is_search(self) -> bool:
        """True for all that the search finds."""
        return not self.ids and bool(self.until)

    @property
    def is_empty(self) -> bool:
        """True when nothing was ticked and no search is meant."""
        return not self.ids and not self.until

    def words(self) -> str:
        """Return what was chosen, for the audit trail."""
        if not self.is_search:
            return "web"
        return f"web, search: {self.query}" if self.query else "web, all messages"

    def batches(self, desk: Desk) -> Iterator[list[str]]:
        """Yield the ids of the messages, some at a time, oldest first."""
        if not self.is_search:
            yield list(self.ids)  # none, if nothing was ticked
            return
        search = read_search(self.query)
        after = ""
        while True:
            found = desk.store.captured_ids(search, limit=BATCH_IDS, after=after)
            batch = [queue_id for queue_id in found if queue_id <= self.until]
            if batch:
                yield batch
            if len(batch) < BATCH_IDS:
                return
            after = batch[-1]

    def count(self, desk: Desk) -> int:
        """Return how many messages these are."""
        if not self.is_search:
            return len(self.ids)
        desk.indexer.catch_up()
        newest = desk.store.captured_entry(self.until)
        search = read_search(self.query)
        if newest is not None and newest.entry.captured_at_ms is not None:
            until = Term(field=Field.BEFORE, number=newest.entry.captured_at_ms)
            search = MailSearch(terms=(*search.terms, until), is_void=search.is_void)
        return desk.store.count_captured(search)[0]


def read_choice(form: FormData) -> Choice:
    """Return what a form is about: the boxes, or by `all` or `scope` what the search finds."""
    is_search = "all" in form or form.get("scope") == "found"
    given = [] if is_search else [str(value) for value in form.getlist("id")]
    ids = [queue_id for queue_id in given if is_queue_id(queue_id)]
    query = " ".join(str(form.get("query", ""))[:MAX_QUERY_CHARACTERS].split())
    until = str(form.get("until", ""))
    return Choice(
        ids=tuple(dict.fromkeys(ids))[:MAX_TICKED],
        query=query,
        until=until if is_queue_id(until) else "",
    )


class Bulk:
    """The endpoint of the forms around the list."""

    def __init__(self, desk: Desk, release: ReleasePage) -> None:
        self._desk = desk
        self._release = release

    async def change(self, request: Request) -> Response:
        """Do what a form asks for, or ask whether that is meant."""
        principal = require(request, Role.OPERATOR)
        form = await request.form()
        choice = read_choice(form)
        action = str(form.get("all") or form.get("action", ""))
        if action not in (*_DONE, "release"):
            raise HTTPException(400, f"action {action[:40]!r} is none of {', '.join(_DONE)}")
        if choice.is_empty:
            return self._back(request, choice, form)
        if action == "release":
            return await self._release.ask(request, choice)
        tags = _tags(form)
        must_ask = action == "delete" or choice.is_search
        if must_ask and form.get("confirmed") != "1":
            return await self._ask(request, choice, action, form)
        change = self._change_of(action, tags, principal, choice)
        number = await self._desk.change(lambda: _carry_out(self._desk, choice, change))
        path = with_notice(_back_path(choice, form), _DONE[action], number)
        return redirect(request, path)

    def _back(self, request: Request, choice: Choice, form: FormData) -> Response:
        return redirect(request, _back_path(choice, form))

    async def _ask(self, request: Request, choice: Choice, action: str, form: FormData) -> Response:
        number = await self._desk.read(lambda: choice.count(self._desk))
        question, verb = _ASKING[action]
        context: dict[str, Any] = {
            **self._desk.page_context,
            "question": question.format(words.counted(number, "message")),
            "verb": f"{verb} {words.counted(number, 'message')}",
            "number": number,
            "action": action,
            "is_danger": action == "delete",
            "choice": choice,
            "tags": ", ".join(_tags(form)),
            "back": _back_path(choice, form),
        }
        return render(request, "confirm.html", context)

    def _change_of(
        self, action: str, tags: list[str], principal: Principal, choice: Choice
    ) -> Callable[[list[str]], int]:
        """Return what changes a batch of messages and returns how many changed."""
        store = self._desk.store
        now = words.now_ms()

        def delete(ids: list[str]) -> int:
            done = delete_captured(
                store, ids, actor=principal.name, now_ms=now, detail=choice.words()
            )
            return len(done.changed)

        def mark(ids: list[str]) -> int:
            store.mark_read(ids, at_ms=now if action == "read" else None)
            return len(ids)

        def retag(ids: list[str]) -> int:
            if action == "settags":
                store.set_tags(ids, tags)
                return len(ids)
            for queue_id in ids:
                self._retag_one(queue_id, tags, is_added=action == "tag")
            return len(ids)

        return {"delete": delete, "read": mark, "unread": mark}.get(action, retag)

    def _retag_one(self, queue_id: str, tags: list[str], *, is_added: bool) -> None:
        found = self._desk.store.captured_entry(queue_id)
        if found is None:
            return
        taken = {tag.lower() for tag in tags}
        kept = [tag for tag in found.tags if tag.lower() not in taken]
        self._desk.store.set_tags([queue_id], [*kept, *tags] if is_added else kept)


def _carry_out(desk: Desk, choice: Choice, change: Callable[[list[str]], int]) -> int:
    return sum(change(batch) for batch in choice.batches(desk))


def _tags(form: FormData) -> list[str]:
    """Return the tags of a form: separated by commas, each once, within limits."""
    given = str(form.get("tags", "")).split(",")
    cleaned = (" ".join(tag.split())[:MAX_TAG_CHARACTERS] for tag in given)
    return list(dict.fromkeys(tag for tag in cleaned if tag))[:MAX_TAGS]


def _back_path(choice: Choice, form: FormData) -> str:
    """Return where the form came from: a message, else the page of the list."""
    if form.get("back") == "message" and len(choice.ids) == 1:
        return f"/sandbox/{choice.ids[0]}"
    page = str(form.get("page", "1"))
    return list_path(choice.query, page=int(page) if page.isdigit() and len(page) < 8 else 1)
