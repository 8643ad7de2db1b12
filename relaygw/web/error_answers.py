"""Errors as their reader wants them: a line for programs, a page for people."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus

from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response

from relaygw.web.guards import NOT_FOUND
from relaygw.web.pages.rendering import render
from relaygw.web.paths import is_for_programs, route_path

_TITLES = {
    401: "Log in first",
    403: "Not allowed",
    404: "There is nothing here",
    408: "That took too long",
    413: "That is too much",
    429: "Too many tries",
    503: "The queue does not answer",
}
_log = logging.getLogger("relaygw.web")
_NOT_THERE = "The message may have been deleted, or the address is wrong."


def error_answer(
    connection: HTTPConnection, status: int, text: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the answer for a request that failed; `text` is for everyone."""
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


def store_answer(connection: HTTPConnection, error: Exception) -> Response:
    """Return 503 for a StoreUnavailable, and log why."""
    _log.warning("the store does not answer: %s", error)
    return error_answer(connection, 503, "the store does not answer")
