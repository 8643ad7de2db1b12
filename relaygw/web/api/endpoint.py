"""An endpoint of the gateway's API, and the table of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any

from pydantic import BaseModel, create_model
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from relaygw.web.api import requests
from relaygw.web.api.answers import Answer
from relaygw.web.api.requests import Call
from relaygw.web.context import WebContext
from relaygw.web.gate.identity import Role, require

V1 = "/api/gateway/v1"
Handle = Callable[[WebContext, Call], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path: what is answered, by whom, and who may ask what."""

    method: str
    path: str
    answer: type[BaseModel]
    handle: Handle | None  # None: its route stands elsewhere
    text: str  # what it does in a line, then an explanation
    _: KW_ONLY
    parameters: Mapping[str, str] = field(default_factory=dict)  # of the query
    body: type[requests.Body] = requests.Body
    errors: tuple[int, ...] = (400, 401, 503)
    is_for_admins: bool = False

    @property
    def role(self) -> Role:
        """Who may ask."""
        if self.is_for_admins:
            return Role.ADMIN
        return Role.VIEWER if self.method == "get" else Role.OPERATOR

    def route(self, web: WebContext) -> Route:
        """Return the route: a request is checked before it is handled, its answer after."""
        handle = self.handle
        assert handle is not None

        async def answer(request: Request) -> Response:
            principal = require(request, self.role)
            given = requests.known_parameters(request, self.parameters)
            body = await requests.body_of(request, self.body) if self.method == "post" else None
            call = Call(request=request, principal=principal, given=given, body=body)
            found = await handle(web, call)
            self.answer.model_validate(found)
            return JSONResponse(found)

        return Route(V1 + self.path, answer, methods=[self.method.upper()])


def answer_with(**fields: Any) -> type[Answer]:
    """Return the class of an answer with these fields: types, or each with what is said of it."""
    given: dict[str, Any] = {
        name: definition if isinstance(definition, tuple) else (definition, ...)
        for name, definition in fields.items()
    }
    return create_model("_Answer", __base__=Answer, **given)


ENDPOINTS: list[Endpoint] = []  # in the order in which they are shown


def _endpoint(method: str, path: str, answer: type[BaseModel], **more: Any) -> Callable[..., Any]:
    """Put the function below into the table; its docstring is the text."""

    def add(handle: Handle) -> Handle:
        ENDPOINTS.append(Endpoint(method, path, answer, handle, handle.__doc__ or "", **more))
        return handle

    return add


get, post = partial(_endpoint, "get"), partial(_endpoint, "post")
