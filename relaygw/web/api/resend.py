"""Sending again by the gateway's API: what a request says, and what comes of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from relaygw.errors import InvalidAddress
from relaygw.mail.address import MAX_PATH_BYTES
from relaygw.mail.clock import clock_ms
from relaygw.operations.queue_actions import LeftAlone
from relaygw.operations.resend import ResendRequest, plan_resend, resent_object, send_again
from relaygw.policy.recipients import check_typed
from relaygw.web.api.answer import QueueId, said
from relaygw.web.api.requests import Body, Call, Flag, read_ids, read_line
from relaygw.web.context import WebContext
from relaygw.web.page import Problem

MAX_MESSAGES = 500


def _target(value: object, info: ValidationInfo) -> str:
    address = read_line(value, info)
    try:
        check_typed(address)
    except InvalidAddress as error:
        what = f"to {address[:MAX_PATH_BYTES]!r} is not an address: {error}"
        raise Problem(400, what, expected="one like ann@example.com") from None
    return address


def _count(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_MESSAGES:
        return value
    raise Problem(400, f"count {str(value)[:20]!r} is not valid", expected=f"1 to {MAX_MESSAGES}")


class Resend(Body):
    """Which messages are sent again, and to whom."""

    ids: Annotated[list[QueueId], BeforeValidator(read_ids), Field(max_length=MAX_MESSAGES)]
    to: Annotated[str, BeforeValidator(_target)] = said(
        "send to this address instead; default: the recipients for whom it bounced or expired, or "
        "if there are none, those it was delivered to",
        default="",
    )
    delivered: Flag = said("also to recipients it was delivered to", default=False)
    force: Flag = said(
        "also mail that may have been taken already: it may be sent twice", default=False
    )
    count: Annotated[int, BeforeValidator(_count)] = said(
        "the number of messages; required for more than one", default=0
    )
    dry_run: Flag = said("send nothing, only list the messages", default=False)

    @model_validator(mode="before")
    @classmethod
    def _check_ids(cls, given: dict[str, Any]) -> dict[str, Any]:
        ids = given.get("ids")
        if not ids:
            raise Problem(400, "no message is named", expected='{"ids": ["1M8A85JPFC6TFQAQP"]}')
        if isinstance(ids, list) and len(ids) > MAX_MESSAGES:
            what, remedy = f"ids has {len(ids)} of them", "send several requests"
            raise Problem(400, what, expected=f"at most {MAX_MESSAGES}", remedy=remedy)
        return given

    def check_number(self, number: int) -> None:
        """Raise Problem unless so many messages were meant."""
        if self.count != number and (self.count or number > 1):
            given = f"count is {self.count}" if self.count else "count is missing"
            remedy = f'write "count": {number} if that is intended; nothing was sent again'
            raise Problem(400, f"{given}, messages to send again: {number}", remedy=remedy)


async def resend(web: WebContext, call: Call) -> dict[str, Any]:
    """Send messages again.

    As new messages with the same content, for mail that was delivered, bounced or expired while its
    content is kept; what is not is left alone and named.
    """
    body, actor, now = call.body, call.principal.name, clock_ms()
    wanted = ResendRequest(body.to or None, body.delivered, body.force)
    planned = await web.open(lambda: plan_resend(web.store, web.resender, body.ids, wanted))
    found = planned
    if not body.dry_run:
        body.check_number(len(planned.messages))
        found = await web.open(
            lambda: send_again(
                web.store, web.resender, planned, actor=actor, now_ms=now, detail="api"
            )
        )
        web.wake_workers()
    known = {one.queue_id for one in found.messages} | {one.queue_id for one in found.left}
    gone = [LeftAlone(one, "there is no such message") for one in body.ids if one not in known]
    return {
        "dry_run": body.dry_run,
        "number": len(found.messages),
        "messages": list(map(resent_object, found.messages)),
        "left": list(map(asdict, (*found.left, *gone))),
    }
