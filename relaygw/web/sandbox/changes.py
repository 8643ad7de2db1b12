"""Changes of captured mail from the pages: read, unread, tags, delete, and release.

What touches more than was ticked, and what cannot be taken back, asks first and says how many. An
address outside the allow list is reached only if an admin was shown that one and confirmed it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from typing import Any

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.clock import clock_ms
from relaygw.operations import captured
from relaygw.web import words
from relaygw.web.context import WebContext, is_queue_id
from relaygw.web.gate.identity import Principal, Role, require
from relaygw.web.lists import Choice, action_of
from relaygw.web.page import redirect, render, with_notice
from relaygw.web.sandbox.captured import MAX_TAG_CHARACTERS, MAX_TAGS, captured_of
from relaygw.web.sandbox.inbox import CapturedChoice, Search, count_of, list_path, read_choice

_DONE = {"read": "read", "unread": "unread", "delete": "deleted"}
_DONE |= dict.fromkeys(("tag", "untag", "settags"), "tagged")
_ASKING = {
    "read": ("Mark {} as read?", "Mark as read"),
    "unread": ("Mark {} as unread?", "Mark as unread"),
    "delete": ("Delete {} for good?", "Delete"),
    "tag": ("Tag {}?", "Tag"),
    "untag": ("Remove tags from {}?", "Remove"),
    "settags": ("Set the tags of {}?", "Set tags of"),
}
MAX_RELEASED = 500  # messages in one release from a page
MAX_CONFIRMED = 200  # addresses outside the allow list in one release
_MAX_LINES = 50


async def change(web: WebContext, request: Request) -> Response:
    """Do what a form around the list asks for, or ask whether that is meant."""
    principal = require(request, Role.OPERATOR)
    form = await request.form()
    choice, action = read_choice(form), action_of(form)
    if action not in (*_DONE, "release"):
        raise HTTPException(400, f"action {action[:40]!r} is not one of {', '.join(_DONE)}")
    if choice.is_empty:
        return redirect(request, choice.back_path(form))
    if action == "release":
        return await _ask_to_release(web, request, choice)
    if (action == "delete" or choice.is_all) and form.get("confirmed") != "1":
        return await _ask(web, request, choice, action, form)
    change_batch = _change_of(web, action, _tags(form), principal, choice)
    number = await web.change(lambda: sum(map(change_batch, choice.batches(web))))
    return redirect(request, with_notice(choice.back_path(form), _DONE[action], number))


async def _ask(
    web: WebContext, request: Request, choice: CapturedChoice, action: str, form: FormData
) -> Response:
    number = await web.read(lambda: count_of(web, choice))
    counted, (question, verb) = words.counted(number, "message"), _ASKING[action]
    context = {
        "question": question.format(counted),
        "verb": f"{verb} {counted}",
        "number": number,
        "action": action,
        "is_danger": action == "delete",
        "choice": choice,
        "tags": ", ".join(_tags(form)),
        "back": choice.back_path(form),
    }
    return render(request, "confirm.html", context, mode=web.mode)


def _change_of(
    web: WebContext, action: str, tags: list[str], principal: Principal, choice: CapturedChoice
) -> Callable[[Sequence[str]], int]:
    store, actor, now = web.store, principal.name, clock_ms()

    def delete(ids: Sequence[str]) -> int:
        detail = choice.words()
        return len(
            captured.delete_captured(store, ids, actor=actor, now_ms=now, detail=detail).changed
        )

    def mark(ids: Sequence[str]) -> int:
        store.sandbox.mark_read(ids, is_read=action == "read")
        return len(ids)

    def retag(ids: Sequence[str]) -> int:
        if action == "settags":
            store.sandbox.set_tags(ids, tags)
            return len(ids)
        taken = {tag.lower() for tag in tags}
        for found in filter(None, map(store.sandbox.captured_entry, ids)):
            kept = [tag for tag in found.tags if tag.lower() not in taken]
            added = tags if action == "tag" else []
            store.sandbox.set_tags([found.entry.queue_id], [*kept, *added])
        return len(ids)

    return {"delete": delete, "read": mark, "unread": mark}.get(action, retag)


def _tags(form: FormData) -> list[str]:
    """Return the tags of a form: separated by commas, each once, within limits."""
    given = str(form.get("tags", "")).split(",")
    cleaned = (" ".join(tag.split())[:MAX_TAG_CHARACTERS] for tag in given)
    return list(dict.fromkeys(tag for tag in cleaned if tag))[:MAX_TAGS]


async def show_release(web: WebContext, request: Request) -> Response:
    """Show who would get one message."""
    require(request, Role.OPERATOR)
    found = await web.read(lambda: captured_of(web, request))
    choice = Choice(listing=Search(), ids=(found.entry.queue_id,))
    return await _ask_to_release(web, request, choice)


async def release(web: WebContext, request: Request) -> Response:
    """Show the plan for another address, or carry out what was confirmed."""
    principal = require(request, Role.OPERATOR)
    form = await request.form()
    choice = _chosen(request, form)
    if choice.is_empty:
        raise HTTPException(400, "no message was named; select some in the list")
    to = str(form.get("to", "")).strip()[:1000]
    if form.get("confirmed") != "1":
        return await _ask_to_release(web, request, choice, to=to)
    wanted = captured.ReleaseRequest(
        to=to or None,
        is_admin=principal.is_admin,
        anyone=form.get("anyone") == "1",
        confirmed=[str(value) for value in form.getlist("address")][:MAX_CONFIRMED],
    )

    def carry_out() -> captured.ReleaseResult:
        ids, by, detail = _ids(web, choice), principal.name, choice.words()
        return captured.release_captured(
            web.store, web.settings, ids, wanted, actor=by, now_ms=clock_ms(), detail=detail
        )

    result = await web.change(carry_out)
    web.wake_workers()
    context = {**_plan(choice, result.copies, result), "messages": len(result.changed)}
    return render(request, "released.html", context, mode=web.mode)


def _chosen(request: Request, form: FormData) -> CapturedChoice:
    queue_id = request.path_params.get("queue_id")
    if queue_id is None:
        return read_choice(form)
    if not is_queue_id(queue_id):
        raise HTTPException(404)
    return Choice(listing=Search(), ids=(queue_id,))


def _ids(web: WebContext, choice: CapturedChoice) -> list[str]:
    return list(islice(chain.from_iterable(choice.batches(web)), MAX_RELEASED))


async def _ask_to_release(
    web: WebContext, request: Request, choice: CapturedChoice, *, to: str = ""
) -> Response:
    """Show who would get the chosen messages, at `to` instead of those they were for."""
    is_admin = require(request, Role.OPERATOR).is_admin
    number = await web.read(lambda: count_of(web, choice))
    problem, planned = "", captured.ReleaseResult()
    if number > MAX_RELEASED:
        problem = (
            f"{words.counted(number, 'message')} are too many for one release; at most "
            f"{MAX_RELEASED} at a time: narrow the search, or use relaygw sandbox release"
        )
    else:
        wanted = captured.ReleaseRequest(to=to or None, is_admin=is_admin, anyone=True)
        planned = await web.open(
            lambda: captured.plan_release(web.store, web.settings, _ids(web, choice), wanted)
        )
    copies = [copy for copy in planned.copies if copy.address not in planned.outside]
    context = {
        **_plan(choice, copies, planned),
        "number": number,
        "to": to,
        "problem": problem,
        "outside": planned.outside[:MAX_CONFIRMED],
        "outside_copies": len(planned.copies) - len(copies),
        "outside_left": max(0, len(planned.outside) - MAX_CONFIRMED),
    }
    return render(request, "release.html", context, mode=web.mode)


def _plan(
    choice: CapturedChoice, copies: Sequence[captured.Copy], result: captured.ReleaseResult
) -> dict[str, Any]:
    query = choice.listing.query
    return {
        "choice": choice,
        "copies": len(copies),
        "going": _lines((copy.address, copy.captured, f"by route {copy.route}") for copy in copies),
        "refused": _lines(
            (refused_copy.address, refused_copy.captured, refused_copy.why)
            for refused_copy in result.refused
        ),
        "left": _lines(("", "", obstacle.why) for obstacle in result.left),
        "back": f"/sandbox/{choice.ids[0]}" if len(choice.ids) == 1 else list_path(query),
    }


def _lines(found: Iterable[tuple[str, str, str]]) -> list[tuple[str, str, str, int]]:
    """Return address, for whom it was ("" when that is the same), why, and how often."""
    numbers = Counter((to, was if was != to else "", why) for to, was, why in found)
    return [(*line, number) for line, number in islice(numbers.items(), _MAX_LINES)]
