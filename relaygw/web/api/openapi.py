"""The OpenAPI 3.1 document of the API, from the table of endpoints; `/api/docs` shows it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache, partial
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from relaygw import __version__
from relaygw.web.api import answers, mail_answers
from relaygw.web.api.endpoint import V1, Endpoint
from relaygw.web.api.endpoints import ENDPOINTS
from relaygw.web.api.mailpit import SERVED, errors_of
from relaygw.web.api.requests import MAX_LISTED, Select
from relaygw.web.context import WebContext
from relaygw.web.page import render
from relaygw.web.sandbox.api.live import Live, Wait

_COMPONENTS: tuple[type[BaseModel], ...] = (  # those that have a name in the description
    *(answers.SourceOfMail, mail_answers.Message, mail_answers.MessageShown, mail_answers.Report),
    *(mail_answers.Recipient, mail_answers.Source, mail_answers.Story, mail_answers.Event),
    *(mail_answers.Outlook, mail_answers.Note, mail_answers.Outcome, mail_answers.Resending),
    *(answers.Provider, answers.Hold, answers.Learned, answers.Status, answers.Incident),
    *(answers.Point, answers.Deed, answers.Waited, answers.Error),
    answers.StandingHold,
)
_REF = "#/components/schemas/"
_TEXT = {"type": "string"}
_HTTP = {"type": "http"}
_QUEUE_ID = {"type": "string", "pattern": "^[A-Z0-9]{10,20}$"}
_TAGS = {
    "Queue": "Waiting mail and outcomes.",
    "Providers": "The mail services.",
    "Watching": "The state of the gateway, now and in the past.",
    "Tests": "For test suites that read captured mail.",
    "Mailpit": "Captured mail through Mailpit's API, with the values of its own documentation. "
    "Live events are a websocket at /api/events.",
}
_PARTS = {
    "queue": "Queue",
    "holds": "Queue",
    "find": "Queue",
    "suppressions": "Queue",
    "providers": "Providers",
    "wait": "Tests",
}
_NOTHING = {"component": "", "description": ""}
_LIMIT = {"type": "integer", "minimum": 1, "maximum": MAX_LISTED}
_REPEATED = frozenset({"id", "state", "result", "series"})


def document(root_path: str) -> dict[str, Any]:
    """Return the description of the API below `root_path`."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(V1 + endpoint.path, {})[endpoint.method] = _operation(endpoint)
    for each in SERVED:
        path = each.path.replace(":path}", "}")
        called = _called(each.method, path, "Mailpit", each.summary)
        called["parameters"] += each.parameters
        paths.setdefault(path, {})[each.method] = {**called, **each.described()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "relaygw",
            "version": __version__,
            "description": "The queue of a mail gateway for programs. Times are RFC 3339, UTC. "
            "Errors are JSON: what is wrong, what was expected, what to do.",
        },
        "servers": [{"url": root_path or "/"}],
        "security": [{"basic": []}, {"bearer": []}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": {model.__name__: _schemas()[model] for model in (*_COMPONENTS, Select)},
            "securitySchemes": {
                "basic": {**_HTTP, "scheme": "basic", "description": "A user of web.users."},
                "bearer": {**_HTTP, "scheme": "bearer", "description": "A token of web.tokens."},
            },
        },
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    summary, _, rest = endpoint.text.partition("\n")
    tag = _PARTS.get(endpoint.path.split("/")[1], "Watching")
    called = _called(endpoint.method, V1 + endpoint.path, tag, summary.removesuffix("."))
    for name, text in endpoint.parameters.items():
        parameter = {"name": name, "in": "query", "description": text, "schema": _asked(name)}
        called["parameters"].append(parameter)
    done = "Done." if endpoint.method != "get" else "The answer."
    responses = {"200": {"description": done, "content": _content(endpoint.answer)}}
    for code in errors_of(endpoint.method, endpoint.errors):
        phrase = HTTPStatus(code).phrase
        responses[str(code)] = {"description": phrase, "content": _content(answers.Error)}
    described = " ".join([*rest.split(), f"Needs the role {endpoint.role.word}."])
    operation = {**called, "description": described, "responses": responses}
    if endpoint.body.model_fields:
        operation["requestBody"] = {"content": _content(endpoint.body)}
    return operation


def _asked(name: str) -> dict[str, Any]:
    if name == "limit":
        return _LIMIT
    return {"type": "array", "items": _TEXT} if name in _REPEATED else _TEXT


def _called(method: str, path: str, tag: str, summary: str) -> dict[str, Any]:
    words = re.sub(r"[^a-z0-9]+", "_", path.removeprefix("/api/").lower()).strip("_")
    parameters = []
    for name in re.findall(r"\{(\w+)\}", path):
        schema = _QUEUE_ID if name == "queue_id" and path.startswith(V1) else _TEXT
        parameters.append({"name": name, "in": "path", "required": True, "schema": schema})
    operation = {"operationId": f"{method}_{words}", "tags": [tag], "summary": summary}
    return {**operation, "parameters": parameters}


def _content(model: type[BaseModel]) -> dict[str, Any]:
    is_named = model in (*_COMPONENTS, Select)
    schema = {"$ref": _REF + model.__name__} if is_named else _schemas()[model]
    return {"application/json": {"schema": schema}}


@cache
def _schemas() -> dict[type[BaseModel], dict[str, Any]]:
    models = dict.fromkeys(
        [
            *_COMPONENTS,
            Select,
            *(kind for endpoint in ENDPOINTS for kind in (endpoint.answer, endpoint.body)),
        ]
    )
    refs, made = models_json_schema(
        [(model, "validation") for model in models], ref_template=_REF + "{model}"
    )
    found, named = made["$defs"], {model.__name__ for model in (*_COMPONENTS, Select)}
    return {
        model: _plain(refs[model, "validation"], found, named, is_whole=True) for model in models
    }


def _plain(schema: Any, found: dict[str, Any], named: set[str], *, is_whole: bool = False) -> Any:
    """Return a schema without titles, with `null` as a type, with unnamed classes inside."""
    if isinstance(schema, list):
        return [_plain(branch, found, named) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    name = schema.get("$ref", "").removeprefix(_REF)
    if name and (is_whole or name not in named):
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return _plain({**found[name], **beside}, found, named)
    plain = {
        key: {k: _plain(v, found, named) for k, v in value.items()}
        if key == "properties"
        else _plain(value, found, named)
        for key, value in schema.items()
        if key not in ("title", "default")
    }
    first, *rest = plain.get("anyOf", ({},))
    if rest == [{"type": "null"}] and isinstance(first.get("type"), str):
        del plain["anyOf"]
        plain = {**first, **plain, "type": [first["type"], "null"]}
        if "enum" in plain:
            plain["enum"] = [*plain["enum"], None]
    return plain


def api_routes(web: WebContext) -> list[BaseRoute]:
    """Return the routes of the APIs and of their description."""

    async def show(request: Request) -> Response:
        described = document(request.scope.get("root_path", ""))
        context = {
            "info": described["info"],
            "base": str(request.base_url).rstrip("/"),
            "groups": [
                (tag["name"], tag["description"], list(_operations(described, tag["name"])))
                for tag in described["tags"]
            ],
            "schemas": [
                (name, schema.get("description", ""), list(_fields(schema)))
                for name, schema in described["components"]["schemas"].items()
            ],
        }
        return render(request, "api_docs.html", context, mode=web.mode)

    async def show_document(request: Request) -> Response:
        return JSONResponse(document(request.scope.get("root_path", "")))

    mailpit = [(served.method, served.path, partial(served.answer, web)) for served in SERVED]
    # cypress-mailpit 2.0.0 puts two slashes there, which Mailpit takes for one
    mailpit += [(method, "/" + path, answer) for method, path, answer in mailpit if "view" in path]
    return [
        *(Route(path, answer, methods=[method.upper()]) for method, path, answer in mailpit),
        WebSocketRoute("/api/events", Live(web).show),
        Route(V1 + "/wait", Wait(web).wait, methods=["GET"]),
        *(endpoint.route(web) for endpoint in ENDPOINTS if endpoint.handle is not None),
        Route("/api/docs", show, methods=["GET"]),
        Route("/api/docs/openapi.json", show_document, methods=["GET"]),
    ]


def _operations(described: Mapping[str, Any], tag: str) -> Iterator[dict[str, Any]]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if tag in operation["tags"]:
                yield {
                    **_NOTHING,
                    **operation,
                    "method": method.upper(),
                    "path": path,
                    **_shown(operation),
                }


def _shown(operation: Mapping[str, Any]) -> dict[str, Any]:
    answer = _schema_of(operation["responses"].get("200", {}))
    others = [(code, each) for code, each in operation["responses"].items() if code != "200"]
    return {
        "parameters": [
            {**_NOTHING, **each, "kind": f"{_kind(each['schema'])[0]}, in the {each['in']}"}
            for each in operation["parameters"]
        ],
        "body": list(_fields(_schema_of(operation.get("requestBody", {})))),
        "answer": list(_fields(answer)),
        "answer_component": answer.get("$ref", "").removeprefix(_REF),
        "errors": [(code, each["description"]) for code, each in others],
        "has_objects": all("application/json" in each.get("content", {}) for _, each in others),
    }


def _schema_of(holder: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = holder.get("content", {}).get("application/json", {}).get("schema", {})
    return found


def _fields(schema: Mapping[str, Any], inside: str = "") -> Iterator[dict[str, Any]]:
    """Yield the fields of an object, those of objects within it after them."""
    for name, each in schema.get("properties", {}).items():
        kind, component = _kind(each)
        yield {**_NOTHING, **each, "name": inside + name, "kind": kind, "component": component}
        mark = "[]." if "items" in each else "."
        yield from _fields(each.get("items", each), f"{inside}{name}{mark}")


def _kind(schema: Mapping[str, Any]) -> tuple[str, str]:
    """Return the description of a value, and the component that it is made of."""
    if "$ref" in schema:
        return "", schema["$ref"].removeprefix(_REF)
    if "anyOf" in schema:
        return " or ".join(_kind(each)[0] for each in schema["anyOf"]), ""
    if schema.get("type") == "array":
        kind, component = _kind(schema["items"])
        return f"list of {kind}".removesuffix(" of "), component
    kinds = schema.get("type", "any")
    word = " or ".join(kinds) if isinstance(kinds, list) else str(kinds)
    if schema.get("format") == "date-time":
        word = word.replace("string", "time")
    if "enum" in schema:
        word = ", ".join(choice or "null" for choice in schema["enum"])
    return word, ""
