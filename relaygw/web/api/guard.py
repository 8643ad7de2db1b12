"""What the guard holds and allows, by the gateway's API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from relaygw.mail.clock import clock_ms
from relaygw.operations import sources
from relaygw.operations.sources import UnknownTarget
from relaygw.store.guard import GuardEntry
from relaygw.web.api.answer import Answer, Time, said
from relaygw.web.api.endpoint import answer_with
from relaygw.web.api.requests import Body, Call, Flag, Line
from relaygw.web.context import WebContext
from relaygw.web.page import MAX_NOTE_CHARACTERS, Problem

Done = TypeVar("Done")


class GuardEntryShown(Answer):
    """A source or class of mail that is held, or may send more than others."""

    id: str = said("of the class or the source")
    source: str = said("id of the source")
    action: str = said("hold or allow")
    label: str = said("who sends it, and the template of a class")
    reason: str
    actor: str = said("guard, or an operator")
    per_hour: int | None = said("messages that are allowed")
    held: int = said("messages that are held for it now")
    since: Time
    new_since: Time | None = said("of a source only templates that were first seen since then")


class GuardHold(Body):
    """What of a source is held, and why."""

    all: Flag = said("all mail of a source, not only what is new", default=False)
    note: Line = said("shown with the mail", default="")


class GuardAllow(Body):
    """How much may come."""

    per_hour: Line = said("messages; empty: four times the busiest hour", default="")


LISTED = answer_with(entries=list[GuardEntryShown])
HELD = answer_with(id=str, label=str, held=(int, said("messages that waited")))
ALLOWED = answer_with(id=str, label=str, per_hour=int, released=int)
RELEASED = answer_with(
    id=str, released=int, per_hour=(int | None, said("what is allowed from now on"))
)


async def list_guarded(web: WebContext, _: Call) -> dict[str, Any]:
    """List what the guard holds and allows.

    The latest first.
    """
    found = await web.read(lambda: sources.guarded(web.store))
    return {"entries": list(map(sources.guarded_object, found))}


async def hold_mail(web: WebContext, call: Call) -> dict[str, Any]:
    """Hold a class of mail or a source.

    Of a source its templates that are not a day old, or all.
    """
    target, is_all, note = _target(call), call.body.all, call.body.note[:MAX_NOTE_CHARACTERS]

    def change() -> tuple[GuardEntry, int]:
        return sources.hold_mail(web.store, target, is_all=is_all, note=note, **_who(call))

    entry, held = await _changed(web, change)
    return {"id": target, "label": entry.label, "held": held}


async def allow_mail(web: WebContext, call: Call) -> dict[str, Any]:
    """Let a class or source send more.

    What is held of it is released.
    """
    target, text = _target(call), call.body.per_hour
    if text and not (text.isascii() and text.isdigit() and 0 < int(text[:9]) == int(text)):
        raise Problem(400, f"per_hour {text[:40]!r} is not a number of messages", expected="200")
    per_hour = int(text) if text else None

    def change() -> tuple[GuardEntry, int]:
        settings = web.settings.guard
        return sources.allow_mail(web.store, target, settings, per_hour=per_hour, **_who(call))

    entry, released = await _changed(web, change)
    return {
        "id": target,
        "label": entry.label,
        "per_hour": entry.per_hour,
        "released": released,
    }


async def release_mail(web: WebContext, call: Call) -> dict[str, Any]:
    """Release a class or source.

    What the guard held by itself is allowed from then on.
    """
    target = _target(call)

    def change() -> tuple[GuardEntry | None, int]:
        return sources.release_mail(web.store, target, web.settings.guard, **_who(call))

    entry, released = await _changed(web, change)
    return {
        "id": target,
        "released": released,
        "per_hour": None if entry is None else entry.per_hour,
    }


def _target(call: Call) -> str:
    return str(call.request.path_params["id"])


def _who(call: Call) -> dict[str, Any]:
    return {"actor": call.principal.name, "now_ms": clock_ms()}


async def _changed(web: WebContext, change: Callable[[], Done]) -> Done:
    try:
        done = await web.change(change)
    except UnknownTarget as error:
        raise Problem(404, str(error)) from None
    web.wake_workers()
    return done


CHANGES: tuple[tuple[str, type[Answer], type[Body], Any], ...] = (
    ("hold", HELD, GuardHold, hold_mail),
    ("allow", ALLOWED, GuardAllow, allow_mail),
    ("release", RELEASED, Body, release_mail),
)
"""Each with its answer, its body, and what does it."""
