"""Endpoints that are made of the verbs of operators: see operations.verb."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, create_model

from relaygw.mail.clock import clock_ms
from relaygw.operations.verb import Asked, Mistake, Verb
from relaygw.web.api.answers import said
from relaygw.web.api.endpoint import ENDPOINTS, Endpoint
from relaygw.web.api.requests import Body, Call, Line
from relaygw.web.context import WebContext
from relaygw.web.page import Problem


def post_verb(verb: Verb, path: str, answer: type[BaseModel]) -> None:
    """Put the endpoint of a verb into the table; what it changes is named in its path."""
    fields: dict[str, Any] = {
        parameter.name: (Line, said(f"{parameter.help} {parameter.example}", default=""))
        for parameter in verb.parameters
        if not parameter.is_target
    }
    targets = {parameter.name for parameter in verb.parameters if parameter.is_target}

    async def handle(web: WebContext, call: Call) -> dict[str, Any]:
        given = {name: getattr(call.body, name) for name in call.body.model_fields_set}
        given |= {name: call.request.path_params[name] for name in targets}
        asked = Asked(
            store=web.store, settings=web.settings, actor=call.principal.name, now_ms=clock_ms()
        )
        try:
            done = await web.change(lambda: verb.carry_out(given, asked))
        except Mistake as error:
            status = 404 if error.name in targets else 400
            raise Problem(status, error.what, expected=error.expected) from None
        web.wake_workers()
        return done

    ENDPOINTS.append(
        Endpoint(
            "post",
            path,
            answer,
            handle,
            verb.help,
            body=create_model(f"Given{verb.name.capitalize()}", __base__=Body, **fields),
            errors=(400, 401, 403, 404, 503) if targets else (400, 401, 403, 503),
        )
    )
