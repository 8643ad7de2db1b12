"""Mailpit's `release`: a captured message is sent to addresses, to all of them or to none."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from relaygw.operations import ReleaseResult, plan_release, release_captured
from relaygw.web.api.json_body import flag, read_object, strings
from relaygw.web.api.reading import found_by
from relaygw.web.pages import words
from relaygw.web.pages.desk import Desk
from relaygw.web.principal import Principal, Role, require

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
        queue_id = found_by(self._desk, request).entry.queue_id
        planned = {one: self._planned(queue_id, one, principal, anyone) for one in addresses}
        problems = [f"{to}: {why}" for to, plan in planned.items() for why in _problems(plan)]
        if problems:
            raise HTTPException(400, "; ".join(problems))
        for to in addresses:
            done = self._carried_out(queue_id, to, principal, anyone)
            if problems := [f"{to}: {why}" for why in _problems(done)]:
                raise HTTPException(409, "; ".join(problems))  # it changed since it was planned

    def _planned(self, queue_id: str, to: str, principal: Principal, anyone: bool) -> ReleaseResult:
        return plan_release(
            self._desk.store,
            self._desk.settings,
            [queue_id],
            to=to,
            is_admin=principal.is_admin,
            anyone=anyone,
        )

    def _carried_out(
        self, queue_id: str, to: str, principal: Principal, anyone: bool
    ) -> ReleaseResult:
        return release_captured(
            self._desk.store,
            self._desk.settings,
            [queue_id],
            to=to,
            is_admin=principal.is_admin,
            anyone=anyone,
            actor=principal.name,
            now_ms=words.now_ms(),
            detail="api",
        )


def _problems(result: ReleaseResult) -> list[str]:
    """Return why a message does not go out; nothing if it does."""
    return [one.why for one in result.refused] + [one.why for one in result.left]
