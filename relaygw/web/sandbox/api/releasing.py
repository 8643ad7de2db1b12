"""Mailpit's `release`: a captured message is sent to addresses, to all of them or to none."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from relaygw.operations.captured import plan_release, release_captured
from relaygw.operations.release_plan import ReleaseResult, Wish
from relaygw.web import words
from relaygw.web.api.json_body import flag, read_object, strings
from relaygw.web.context import Desk
from relaygw.web.gate.identity import Principal, Role, require
from relaygw.web.sandbox.api.reading import found_by

MAX_TARGETS = 50


class Releasing:
    """The endpoint."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def release(self, request: Request) -> Response:
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
        await self._desk.change(lambda: self._release(request, addresses, principal, anyone))
        return PlainTextResponse("ok")

    def _release(
        self, request: Request, addresses: list[str], principal: Principal, anyone: bool
    ) -> None:
        store, settings = self._desk.store, self._desk.settings
        ids = [found_by(self._desk, request).entry.queue_id]
        wishes = [Wish(to=to, is_admin=principal.is_admin, anyone=anyone) for to in addresses]
        problems = [
            f"{wish.to}: {why}"
            for wish in wishes
            for why in _problems(plan_release(store, settings, ids, wish))
        ]
        if problems:
            raise HTTPException(400, "; ".join(problems))
        for wish in wishes:
            done = release_captured(
                store,
                settings,
                ids,
                wish,
                actor=principal.name,
                now_ms=words.now_ms(),
                detail="api",
            )
            if problems := [f"{wish.to}: {why}" for why in _problems(done)]:
                raise HTTPException(409, "; ".join(problems))  # it changed since it was planned


def _problems(result: ReleaseResult) -> list[str]:
    """Return why a message does not go out; nothing if it does."""
    return [one.why for one in result.refused] + [one.why for one in result.left]
