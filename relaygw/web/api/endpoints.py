"""The endpoints of the gateway's API in one table: its routes and its description come from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from relaygw.operations.queue_actions import ACTIONS, QueueAction
from relaygw.operations.selectors import SELECTORS
from relaygw.web.api import handlers
from relaygw.web.api.answers import (
    Deed,
    Hold,
    Incident,
    Message,
    Outcome,
    Point,
    Provider,
    Status,
    Story,
    Waited,
    answer_with,
    said,
)
from relaygw.web.api.requests import (
    DEFAULT_LISTED,
    MAX_LISTED,
    Body,
    Call,
    ProviderHold,
    body_of,
    change_of,
    known_parameters,
)
from relaygw.web.context import WebContext
from relaygw.web.gate.identity import Role, require

V1 = "/api/gateway/v1"
_TAGS = {"queue": "Queue", "providers": "Providers", "wait": "Tests"}
_SINCE = "RFC 3339, or an age like 6h"
_LIMIT = {"limit": f"1 to {MAX_LISTED}, {DEFAULT_LISTED} without it"}
_CONDITIONS = {
    name: f"{one.help} `all` is every state; commas do as well." if name == "state" else one.help
    for name, one in SELECTORS.items()
}
_ONE, _CHANGED = (401, 404, 503), (400, 401, 403, 404, 503)
Handle = Callable[[WebContext, Call], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path: who may ask what, and what is answered.

    What it does is told by the first line of its text, the rest explains.
    """

    method: str
    path: str
    handle: Handle | None  # None: its route stands elsewhere
    answer: type[BaseModel]
    _: KW_ONLY
    text: str = ""  # that of `handle` without it
    role: Role = Role.VIEWER
    parameters: Mapping[str, str] = field(default_factory=dict)  # of the query
    body: type[Body] = Body
    errors: tuple[int, ...] = (400, 401, 503)

    @property
    def tag(self) -> str:
        """The part of the API that it belongs to."""
        return _TAGS.get(self.path.split("/")[1], "Watching")

    @property
    def words(self) -> tuple[str, str]:
        """What it does, and an explanation."""
        summary, _, rest = (self.text or self.handle.__doc__ or "").partition("\n")
        return summary.removesuffix("."), " ".join(rest.split())

    def route(self, web: WebContext) -> Route:
        """Return the route: a request is checked before it is handled, its answer after."""
        handle = self.handle
        assert handle is not None

        async def answer(request: Request) -> Response:
            principal = require(request, self.role)
            given = known_parameters(request, self.parameters)
            body = await body_of(request, self.body) if self.method == "post" else None
            call = Call(request=request, principal=principal, given=given, body=body)
            found = await handle(web, call)
            self.answer.model_validate(found)
            return JSONResponse(found)

        return Route(V1 + self.path, answer, methods=[self.method.upper()])


def _change(action: QueueAction) -> Endpoint:
    states = " or ".join(sorted(action.from_states))
    return Endpoint(
        "post",
        f"/queue/{action.name}",
        handlers.change_by(action),
        Outcome,
        text=f"{action.label} messages.\n{action.means} For mail that is {states}; what is not is "
        "left alone and named.",
        role=Role.OPERATOR,
        body=change_of(action),
        errors=(400, 401, 403, 503),
    )


_PAGE = answer_with(
    messages=list[Message],
    next=(str | None, said("`after` of the next page; null on the last one")),
)
_HELD = answer_with(provider=str, was_held=(bool, said("by an operator, before this")))
ENDPOINTS = (
    Endpoint(
        "get",
        "/queue",
        handlers.list_messages,
        _PAGE,
        parameters={**_CONDITIONS, **_LIMIT, "after": "`next` of the page before"},
    ),
    Endpoint("get", "/queue/{queue_id}", handlers.show_message, Message, errors=_ONE),
    Endpoint("get", "/queue/{queue_id}/explain", handlers.explain_message, Story, errors=_ONE),
    *map(_change, ACTIONS.values()),
    Endpoint("get", "/providers", handlers.list_providers, answer_with(providers=list[Provider])),
    Endpoint(
        "post",
        "/providers/{name}/hold",
        handlers.post_provider_hold,
        _HELD,
        role=Role.OPERATOR,
        body=ProviderHold,
        errors=_CHANGED,
    ),
    Endpoint(
        "post",
        "/providers/{name}/release",
        handlers.post_provider_release,
        answer_with(provider=str, ended=list[Hold]),
        role=Role.OPERATOR,
        errors=_CHANGED,
    ),
    Endpoint("get", "/status", handlers.show_status, Status),
    Endpoint(
        "get",
        "/incidents",
        handlers.list_incidents,
        answer_with(incidents=list[Incident]),
        parameters={"since": f"{_SINCE}; a day without it"},
    ),
    Endpoint(
        "get",
        "/history",
        handlers.list_history,
        answer_with(slice_s=int, points=list[Point]),
        parameters={
            "since": f"{_SINCE}; six hours without it",
            "series": "only this one; may be repeated",
        },
    ),
    Endpoint(
        "get",
        "/audit",
        handlers.list_audit,
        answer_with(entries=list[Deed]),
        parameters={
            **_LIMIT,
            "since": _SINCE,
            "actor": "contains it",
            "action": "is it, or one below it: `queue` for `queue.delete`",
            "target": "is exactly this",
        },
    ),
    Endpoint(
        "get",
        "/wait",
        None,
        Waited,
        text="Wait for captured mail.\nAnswers when the mail is there, with its codes and links; "
        "408 if it does not come.",
        parameters={
            "to": "a whole address, of the envelope or the header",
            "from": "a part of the sender",
            "subject": "a part of the subject",
            "query": "a search as in the sandbox",
            "since": "captured after it, RFC 3339",
            "timeout": "30s; 10s without it, 120s at most",
        },
        errors=(400, 401, 408, 503),
    ),
)
"""In the order in which they are shown."""
