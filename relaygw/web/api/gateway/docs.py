"""`/api/docs`: the description of the API for people, drawn here from the document for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from relaygw.web.api.gateway.openapi import document
from relaygw.web.context import WebContext
from relaygw.web.page import render

_REF = "#/components/schemas/"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldLine:
    """A field of an object."""

    name: str
    kind: str
    component: str  # the object that it is made of, "" for none
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationView:
    """One method of one path."""

    anchor: str
    method: str
    path: str
    summary: str
    description: str
    parameters: list[FieldLine]
    body: list[FieldLine]
    answer: list[FieldLine]
    answer_component: str
    errors: list[tuple[str, str]]


class DocsPage:
    """The endpoints of the description."""

    def __init__(self, desk: WebContext) -> None:
        self._desk = desk

    async def show(self, request: Request) -> Response:
        """Show the description as a page."""
        described = document(request.scope.get("root_path", ""))
        context = {
            **self._desk.page_context,
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
        return render(request, "api_docs.html", context)

    async def show_document(self, request: Request) -> Response:
        """Answer the document."""
        return JSONResponse(document(request.scope.get("root_path", "")))


def _operations(described: Mapping[str, Any], tag: str) -> Iterator[OperationView]:
    for path, methods in described["paths"].items():
        for method, one in methods.items():
            if tag in one["tags"]:
                yield _view(method, path, one)


def _view(method: str, path: str, one: Mapping[str, Any]) -> OperationView:
    ok = _schema_of(one["responses"].get("200", {}))
    return OperationView(
        anchor=one["operationId"],
        method=method.upper(),
        path=path,
        summary=one["summary"],
        description=one.get("description", ""),
        parameters=[
            FieldLine(
                name=each["name"],
                kind=f"{_kind(each['schema'])[0]}, in the {each['in']}",
                component="",
                description=each.get("description", ""),
            )
            for each in one["parameters"]
        ],
        body=list(_fields(_schema_of(one.get("requestBody", {})))),
        answer=list(_fields(ok)),
        answer_component=ok.get("$ref", "").removeprefix(_REF),
        errors=[
            (code, each["description"])
            for code, each in one["responses"].items()
            if code not in ("200", "default")
        ],
    )


def _schema_of(holder: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = holder.get("content", {}).get("application/json", {}).get("schema", {})
    return found


def _fields(schema: Mapping[str, Any], inside: str = "") -> Iterator[FieldLine]:
    """Yield the fields of an object, those of objects within it after them."""
    for name, each in schema.get("properties", {}).items():
        kind, component = _kind(each)
        line = FieldLine(
            name=inside + name,
            kind=kind,
            component=component,
            description=each.get("description", ""),
        )
        yield line
        inner = each.get("items", each)
        mark = "[]." if "items" in each else "."
        yield from _fields(inner, f"{inside}{name}{mark}")


def _kind(schema: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a value is in words, and the component that it is made of."""
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
        word = ", ".join(schema["enum"])
    return word, ""
