"""Errors as their reader wants them: a line or JSON for programs, a page for people."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from relaygw.web.gate.guards import NOT_FOUND, is_for_programs, route_path
from relaygw.web.page import render


class Problem(HTTPException):
    """Says what is wrong, what was expected and what to do; its text is for everyone."""

    def __init__(
        self,
        status_code: int,
        what: str,
        *,
        expected: str = "",
        remedy: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        text = what + (f"; expected {expected}" if expected else "")
        super().__init__(status_code, f"{text}; {remedy}" if remedy else text, headers)
        self.what = what
        self.expected = expected
        self.remedy = remedy


_TITLES = {
    401: "Log in first",
    403: "Not allowed",
    404: "There is nothing here",
    408: "That took too long",
    413: "That is too much",
    429: "Too many tries",
    503: "The queue does not answer",
}
_GATEWAY_API = "/api/gateway/"
_REMEDIES = {
    401: "send a user of web.users by HTTP basic, or a token of web.tokens as a bearer token",
    404: "see /api/docs for the addresses there are",
    405: "see /api/docs for the methods there are",
    429: "wait as Retry-After says",
    503: "try again in a moment",
}
_log = logging.getLogger("relaygw.web")
_NOT_THERE = "The message may have been deleted, or the address is wrong."


def error_answer(
    connection: HTTPConnection,
    status: int,
    text: str,
    headers: Mapping[str, str] | None = None,
    *,
    problem: Problem | None = None,
) -> Response:
    """Return the answer for a request that failed; `text` and `problem` are for everyone."""
    if route_path(connection.scope).startswith(_GATEWAY_API):
        return _json_answer(status, text, headers, problem)
    if status == 404:
        text = NOT_FOUND
    # what htmx asked for is put into a page: a page in a page would be too much
    is_page = "text/html" in connection.headers.get("accept", "") and not (
        is_for_programs(route_path(connection.scope)) or "hx-request" in connection.headers
    )
    if not is_page or connection.scope["type"] != "http" or status < 400:
        return PlainTextResponse(text, status_code=status, headers=headers)
    context = {
        "title": _TITLES.get(status) or HTTPStatus(status).phrase,
        "text": _NOT_THERE if status == 404 else text[:1].upper() + text[1:],
    }
    response = render(Request(connection.scope), "error.html", context, status_code=status)
    response.headers.update(headers or {})
    return response


def _json_answer(
    status: int, text: str, headers: Mapping[str, str] | None, problem: Problem | None
) -> Response:
    told = {
        "status": status,
        "what": problem.what if problem is not None else text,
        "expected": problem.expected if problem is not None else "",
        "remedy": (problem.remedy if problem is not None else "") or _REMEDIES.get(status, ""),
    }
    return JSONResponse({"error": told}, status_code=status, headers=headers)


def store_answer(connection: HTTPConnection, error: Exception) -> Response:
    """Return 503 for a StoreUnavailable, and log why."""
    _log.warning("the store does not answer: %s", error)
    return error_answer(connection, 503, "the store does not answer")
