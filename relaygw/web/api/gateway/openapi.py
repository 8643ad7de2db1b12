"""The API as an OpenAPI 3.1 document."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from relaygw import __version__
from relaygw.web.api.gateway.endpoints import Endpoint, endpoints
from relaygw.web.api.gateway.mailpit import MAILPIT
from relaygw.web.api.gateway.schemas import QUEUE_ID, SCHEMAS, TEXT, Schema, ref

_TAGS = {
    "Queue": "Mail that waits, and what became of it.",
    "Providers": "Who sends it on.",
    "Watching": "How the gateway is doing, and how it did.",
    "Tests": "For suites of tests that look at captured mail.",
    "Mailpit": "Captured mail by Mailpit's API: values as its own documentation says. "
    "Live events are a websocket at /api/events.",
}
_REPEATED = frozenset({"id", "state", "series"})
_PATH_PARAMETER = re.compile(r"\{(\w+)\}")


def document(root_path: str) -> dict[str, Any]:
    """Return the description of an API below `root_path`."""
    paths: dict[str, dict[str, Any]] = {}
    for one in endpoints():
        paths.setdefault(one.path, {})[one.method] = _operation(one)
    for method, path, summary in MAILPIT:
        paths.setdefault(path, {})[method] = _mailpit_operation(method, path, summary)
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
            "schemas": SCHEMAS,
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic", "description": "A user of web.users."},
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of web.tokens.",
                },
            },
        },
    }


def _operation(one: Endpoint) -> dict[str, Any]:
    described = f"{one.description} Needs the role {one.role}.".strip()
    operation: dict[str, Any] = {
        "operationId": _operation_id(one.method, one.path),
        "tags": [one.tag],
        "summary": one.summary,
        "description": described,
        "parameters": [
            *_path_parameters(one.path),
            *(_query_parameter(name, text) for name, text in one.parameters.items()),
        ],
        "responses": {
            "200": _response("Done." if one.method != "get" else "The answer.", one.answer),
            **{str(code): _response(HTTPStatus(code).phrase, ref("Error")) for code in one.errors},
        },
    }
    if one.body is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": one.body}}}
    return operation


def _mailpit_operation(method: str, path: str, summary: str) -> dict[str, Any]:
    return {
        "operationId": _operation_id(method, path),
        "tags": ["Mailpit"],
        "summary": summary,
        "parameters": list(_path_parameters(path)),
        "responses": {"default": {"description": "As Mailpit answers."}},
    }


def _operation_id(method: str, path: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "_", path.removeprefix("/api/").lower()).strip("_")
    return f"{method}_{words}"


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": QUEUE_ID if name == "queue_id" and "gateway" in path else TEXT,
        }
        for name in _PATH_PARAMETER.findall(path)
    ]


def _query_parameter(name: str, text: str) -> dict[str, Any]:
    schema: Schema = {"type": "array", "items": TEXT} if name in _REPEATED else TEXT
    return {"name": name, "in": "query", "description": text, "schema": schema}


def _response(description: str, schema: Schema) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
