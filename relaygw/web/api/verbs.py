"""Endpoints that are made of the verbs of operators: see operations.verb."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, create_model

from relaygw.operations.verb import Kind, Mistake, Parameter, Verb
from relaygw.web.api.answers import said
from relaygw.web.api.endpoint import ENDPOINTS, Endpoint
from relaygw.web.api.requests import Body, Call, Flag, Line
from relaygw.web.context import WebContext
from relaygw.web.page import Problem
from relaygw.web.verbs import carry_out, problem_of

MAX_LISTED = 1000


def _texts(parameter: Parameter, value: object) -> object:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        what, expected = f"{parameter.name} is not a list of texts", f'["{parameter.example}"]'
        raise Problem(400, what, expected=expected)
    if not 0 < len(value) <= MAX_LISTED:
        what, remedy = f"{parameter.name} has {len(value)} of them", "send several requests"
        raise Problem(400, what, expected=f"1 to {MAX_LISTED}", remedy=remedy)
    return value


def post_verb(verb: Verb, path: str, answer: type[BaseModel], *, about: str = "") -> None:
    """Put the endpoint of a verb into the table; what it changes is named in its path.

    `about` says what its body has.
    """
    targets = [parameter.name for parameter in verb.parameters if parameter.is_target]
    fields = {
        parameter.name: _field(parameter)
        for parameter in verb.parameters
        if not (parameter.is_target or parameter.is_for_commands)
    }

    async def handle(web: WebContext, call: Call) -> dict[str, Any]:
        given = {name: getattr(call.body, name) for name in call.body.model_fields_set}
        given |= {name: call.request.path_params[name] for name in targets}
        try:
            done = await carry_out(web, verb, given, actor=call.principal.name, way="api")
        except Mistake as error:
            raise problem_of(verb, error) from None
        return done.answer

    ENDPOINTS.append(
        Endpoint(
            "post",
            path,
            answer,
            handle,
            verb.endpoint_help or verb.help,
            body=create_model(
                f"Given{verb.name.capitalize()}", __base__=Body, __doc__=about or None, **fields
            ),
            errors=(400, 401, 403, 404, 503) if targets else (400, 401, 403, 503),
        )
    )


def _field(parameter: Parameter) -> Any:
    """Return the field of the body, with its type."""
    text = parameter.field_help or f"{parameter.help} {parameter.example}"
    match parameter.kind:
        case Kind.FLAG:
            return Flag, said(text, default=False)
        case Kind.LIST:
            check = BeforeValidator(partial(_texts, parameter))
            return Annotated[list[str], check, Field(max_length=MAX_LISTED)], ...
    return Line, said(text, default=parameter.default)
