"""Endpoints of the gateway's API about mail: listed, found, told of, changed, sent again."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC
from itertools import chain
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from relaygw.errors import InvalidAddress
from relaygw.mail.address import MAX_PATH_BYTES
from relaygw.mail.clock import clock_ms
from relaygw.mail.search import OUTCOMES
from relaygw.operations.queue_actions import ACTIONS, LeftAlone, Order, QueueAction, Result
from relaygw.operations.queue_object import queue_object, shown_object
from relaygw.operations.resend import ResendRequest, plan_resend, resent_object, send_again
from relaygw.operations.selectors import SELECTORS, found_object
from relaygw.operations.story import tell_story
from relaygw.policy.recipients import check_typed
from relaygw.policy.story import as_object as story_object
from relaygw.store.find import NoPlace
from relaygw.web.api import mail_answers, requests
from relaygw.web.api.answers import QueueId, Time, said
from relaygw.web.api.endpoint import ENDPOINTS, Endpoint, answer_with
from relaygw.web.api.endpoint import get as _get
from relaygw.web.api.endpoint import post as _post
from relaygw.web.api.requests import Body, Call, Flag, read_ids, read_line
from relaygw.web.context import WebContext, is_queue_id
from relaygw.web.gate.identity import Role
from relaygw.web.page import Problem
from relaygw.web.queue.selection import QueueChoice, carry_out, read_conditions, read_order

SINCE = "RFC 3339, or an age like 6h"
LIMIT = {"limit": f"1 to {requests.MAX_LISTED}, default {requests.DEFAULT_LISTED}"}
_NEXT = (str | None, said("`after` of the next page; null on the last one"))
_PAGE = answer_with(messages=list[mail_answers.Message], next=_NEXT)
_LISTED = {
    **{name: selector.help for name, selector in SELECTORS.items()},
    "state": f"{SELECTORS['state'].help} `all` is every state; commas work as well.",
    "order": "newest or oldest; default: waiting mail oldest first, finished mail newest first",
    **LIMIT,
    "after": "`next` of the page before",
}
_ONE = (401, 404, 503)


@_get("/queue", _PAGE, parameters=_LISTED)
async def list_messages(web: WebContext, call: Call) -> dict[str, Any]:
    """List messages.

    Without `state`, `result` and `id`, what still waits.
    """
    limit, after = requests.limit_of(call.given), requests.after_of(call.given)
    conditions = read_conditions(call.given, now_ms=clock_ms(), tz=UTC)
    newest_first = read_order(call.given.get("order", ""), conditions)
    entries = await web.read(
        lambda: web.store.queue.search(
            conditions.selection, limit=limit + 1, after=after, newest_first=newest_first
        )
    )
    following = entries[limit - 1].queue_id if len(entries) > limit else None
    return {"messages": list(map(queue_object, entries[:limit])), "next": following}


_FOUND = answer_with(
    messages=list[mail_answers.Message],
    next=(str | None, said("`before` of the next page; null if there is none")),
    looked=(str, said("what was searched, and what was not")),
    until=(Time | None, said("time was up: older mail is on the next pages")),
)
_FIND = {
    "q": "an address or a part of it, words of the subject, an order number, a queue id, a "
    "Message-ID, a provider's id; conditions like is:bounced user:shop1 after:7d",
    "result": f"of a recipient: {', '.join(OUTCOMES)}",
    "since": f"accepted since; with a result: ended since: {SINCE}",
    "until": "accepted or ended until",
    **LIMIT,
    "before": "`next` of the page before",
}


@_get("/find", _FOUND, parameters=_FIND)
async def find_messages(web: WebContext, call: Call) -> dict[str, Any]:
    """Find mail in any state.

    The newest first; one of q, result and since at least. A page may be empty and have a next one.
    """
    search, limit = requests.search_of_all(call.given), requests.limit_of(call.given)
    before = call.given.get("before", "")
    try:
        return await web.read(lambda: found_object(web.store, search, limit=limit, before=before))
    except NoPlace as error:
        raise Problem(400, f"before {error}", expected="`next` of the page before") from None


@_get("/queue/{queue_id}", mail_answers.MessageShown, errors=_ONE)
async def show_message(web: WebContext, call: Call) -> dict[str, Any]:
    """Show one message.

    With what was reported of it after the provider's 250, for operators as it came.
    """
    queue_id = _id_of(call)
    found = await web.read(lambda: web.store.queue.entries([queue_id]))
    if not found:
        raise _missing(queue_id)
    reports = await web.read(lambda: web.store.reports.of_message(queue_id))
    return shown_object(found[0], reports, is_raw=call.principal.role >= Role.OPERATOR)


@_get("/queue/{queue_id}/explain", mail_answers.Story, errors=_ONE)
async def explain_message(web: WebContext, call: Call) -> dict[str, Any]:
    """Tell the story of one message.

    What happened to it, what each reply means, what comes next, what to do.
    """
    queue_id, now = _id_of(call), clock_ms()
    story = await web.read(lambda: tell_story(web.store, web.settings, queue_id, now_ms=now))
    if story is None:
        raise _missing(queue_id)
    return story_object(story)


def _id_of(call: Call) -> str:
    queue_id: str = call.request.path_params["queue_id"].upper()
    if not is_queue_id(queue_id):
        raise _missing(queue_id)
    return queue_id


def _missing(queue_id: str) -> Problem:
    remedy = "see /api/gateway/v1/queue; finished messages go after queue.retention"
    return Problem(404, f"there is no message {queue_id[:40]}", remedy=remedy)


def _change_by(action: QueueAction) -> Endpoint:
    states = " or ".join(sorted(action.from_states))

    async def change(web: WebContext, call: Call) -> dict[str, Any]:
        now = clock_ms()
        choice: QueueChoice = call.body.choice(now_ms=now)
        provider = getattr(call.body, "provider", "")
        order = Order(
            actor=call.principal.name,
            detail=choice.words().replace("web", "api", 1),
            note=getattr(call.body, "note", ""),
            is_forced=getattr(call.body, "force", False),
            provider=provider,
            senders=web.provider(provider).senders if action.takes_provider else (),
        )
        if call.body.dry_run:
            result = await web.read(lambda: _would_touch(web, action, choice))
        else:
            result = await web.change(lambda: carry_out(web, action, choice, order, now_ms=now))
            web.wake_workers()
        return {
            "action": action.name,
            "dry_run": call.body.dry_run,
            "number": len(result.changed),
            "changed": list(result.changed),
            "left": [asdict(obstacle) for obstacle in result.left],
        }

    return Endpoint(
        "post",
        f"/queue/{action.name}",
        mail_answers.Outcome,
        change,
        f"{action.label} messages.\n{action.means} For mail that is {states}; other mail is "
        "left alone and listed.",
        body=requests.change_of(action),
        errors=(400, 401, 403, 503),
    )


ENDPOINTS += map(_change_by, ACTIONS.values())


def _would_touch(web: WebContext, action: QueueAction, choice: QueueChoice) -> Result:
    if choice.is_all:
        ids = chain.from_iterable(choice.batches(web, action.from_states))
        return Result(changed=tuple(ids), left=())
    changed = (
        entry.queue_id
        for entry in web.store.queue.entries(choice.ids)
        if action.from_states & {part.state for part in entry.deliveries}
    )
    return Result(changed=tuple(changed), left=())


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


@_post("/queue/resend", mail_answers.Resending, body=Resend, errors=(400, 401, 403, 503))
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
    known = {message.queue_id for message in found.messages} | {
        obstacle.queue_id for obstacle in found.left
    }
    gone = [
        LeftAlone(queue_id, "there is no such message")
        for queue_id in body.ids
        if queue_id not in known
    ]
    return {
        "dry_run": body.dry_run,
        "number": len(found.messages),
        "messages": list(map(resent_object, found.messages)),
        "left": list(map(asdict, (*found.left, *gone))),
    }
