"""The page of suppressed addresses: found, added, lifted."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from relaygw.errors import InvalidAddress
from relaygw.mail.clock import clock_ms
from relaygw.mail.suppression import ANY, STREAMS, Cause, Suppression, read_domain
from relaygw.mail.words import escape
from relaygw.operations.suppression import lift, suppress
from relaygw.operations.suppression.entry import entries_of, read_field
from relaygw.policy.recipients import read_address
from relaygw.store.suppression_list import SuppressionFilter
from relaygw.web.context import WebContext
from relaygw.web.gate.identity import Role, require
from relaygw.web.page import Problem, note_of, redirect, render, with_notice
from relaygw.web.queue.selection import read_word
from relaygw.web.suppression_place import place_of, read_place

PAGE_ENTRIES = 100
_MOST = 10_000
_PLACE = "/suppression"
_WORDS = {
    Cause.BOUNCE: "Hard bounce",
    Cause.REFUSED: "Refused twice",
    Cause.COMPLAINT: "Complaint",
    Cause.UNSUBSCRIBE: "Unsubscribed",
    Cause.MANUAL: "By hand",
}
_CHANGES = {"add": (suppress, "suppressed"), "remove": (lift, "lifted")}
_REASONS = {cause.value: word for cause, word in _WORDS.items()}


async def show_suppression(web: WebContext, request: Request) -> Response:
    """Show a page of the list, newest first."""
    return await _show(web, request)


async def change_suppression(web: WebContext, request: Request) -> Response:
    """Add an address, or lift one."""
    actor = require(request, Role.OPERATOR).name
    form = await request.form()
    action = str(form.get("action", ""))
    if action not in _CHANGES:
        raise Problem(400, f"action {action[:40]!r} is not known", expected="add or remove")
    now_ms = clock_ms()
    change, did = _CHANGES[action]
    try:
        entries = _entries(web, form, actor=actor, now_ms=now_ms)
    except InvalidAddress as error:
        return await _show(web, request, problem=str(error), form=form)
    await web.change(lambda: change(web.store, entries, actor=actor, now_ms=now_ms, way="web"))
    return redirect(request, with_notice(_PLACE, did, 1))


def _entries(web: WebContext, form: FormData, *, actor: str, now_ms: int) -> list[Suppression]:
    """Return the entry that a form names. Raises InvalidAddress with a text for people."""
    given = {name: str(form.get(name, ""))[:1000] for name in ("address", "domain", "stream")}
    address = _read(read_address, given["address"], "an address", "ann@example.com")
    advice = "example.com, or nothing for any sender"
    domain = _read(read_domain, given["domain"], "a domain", advice)
    if given["stream"] not in (ANY, *STREAMS):
        raise Problem(400, "stream is not known", expected=" or ".join(STREAMS))
    cause = Cause(str(form.get("reason"))) if form.get("reason") in _REASONS else Cause.MANUAL
    return entries_of(
        [address],
        sender_domain=domain,
        stream=given["stream"],
        cause=cause,
        source=actor,
        note=note_of(form),
        rules=web.settings.suppression.rules(),
        now_ms=now_ms,
    )


def _read(read: Callable[[str], str], text: str, kind: str, advice: str) -> str:
    what = f"{escape(text[:200])} is not {kind}"
    return read_field(read, text, lambda why: InvalidAddress(f"{what}: {why}; write {advice}"))


async def _show(
    web: WebContext, request: Request, *, problem: str = "", form: FormData | None = None
) -> Response:
    query = request.query_params
    given = {name: read_word(name, query.get(name, "")) for name in ("q", "reason")}
    causes = frozenset({Cause(given["reason"])} if given["reason"] in _REASONS else ())
    wanted = SuppressionFilter(text=given["q"] or None, causes=causes)
    unknown = Problem(400, "the page is not known", expected="the first one")
    after = read_place(query.get("after", ""), unknown)

    def read() -> tuple[list[Suppression], int]:
        listed = web.store.suppressions
        found = listed.suppressed(limit=PAGE_ENTRIES + 1, wanted=wanted, after=after)
        return found, listed.count_suppressed(wanted, most=_MOST)

    found, number = await web.read(read)
    has_more = len(found) > PAGE_ENTRIES
    following = place_of(found[PAGE_ENTRIES - 1]) if has_more else ""
    typed = form if form is not None else {}
    context = {
        "entries": found[:PAGE_ENTRIES],
        "number": f"{number:,}" + ("+" if number >= _MOST else ""),
        "given": given,
        "is_filtered": any(given.values()),
        "reasons": _REASONS,
        "words": _WORDS,
        "streams": STREAMS,
        "rules": web.settings.suppression,
        "typed": {name: str(typed.get(name, ""))[:1000] for name in ("address", "domain", "note")},
        "problem": problem,
        "next_path": _path({**given, "after": following}) if has_more else "",
        "first_path": _path(given) if after is not None else "",
    }
    status = 400 if problem else 200
    return render(request, "suppression.html", context, mode=web.mode, status_code=status)


def _path(given: dict[str, str]) -> str:
    words = {name: value for name, value in given.items() if value}
    return f"{_PLACE}?{urlencode(words)}" if words else _PLACE
