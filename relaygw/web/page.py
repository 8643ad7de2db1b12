"""Pages and errors: Jinja2 templates, always escaped, and static files under their hash."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import Route

from relaygw import __version__
from relaygw.operations.readers import MAX_NOTE_CHARACTERS, read_line
from relaygw.web import words
from relaygw.web.gate.guards import NOT_FOUND, PAGE_HEADERS, is_for_programs, route_path
from relaygw.web.gate.identity import Role, principal_of

if TYPE_CHECKING:
    from jinja2 import Environment

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_STATIC = (Path(__file__).parent / "static").iterdir()
_FILES = {path.name: path.read_bytes() for path in _STATIC if path.suffix in _TYPES}
_VERSIONS = {name: hashlib.sha256(body).hexdigest()[:16] for name, body in _FILES.items()}


def static_path(name: str) -> str:
    """Return the path of a file below `web.base_path`; raises KeyError for one there is not."""
    return f"/static/{_VERSIONS[name]}/{name}"


def static_routes() -> list[Route]:
    """Return the route of all files; everybody may read them."""
    return [Route("/static/{version}/{name}", _show, methods=["GET"])]


async def _show(request: Request) -> Response:
    name = request.path_params["name"]
    if _VERSIONS.get(name) != request.path_params["version"]:
        raise HTTPException(404)
    return Response(
        _FILES[name],
        media_type=_TYPES[Path(name).suffix],
        headers={"Cache-Control": "public, max-age=31536000, immutable"},
    )


@cache
def _environment() -> Environment:
    """Return the template environment; it is loaded for the first page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("relaygw.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        counted=words.counted,
        given_as=words.given_as,
        note_characters=MAX_NOTE_CHARACTERS,
        version=__version__,
    )
    environment.filters.update(
        number=lambda number: f"{number:,}",
        size=words.size,
        took=words.took,
        time=words.time_tag,
        time_span=words.span_tag,
        with_times=words.with_times,
        utc_day=words.utc_day,
    )
    return environment


def render(
    request: Request,
    name: str,
    context: Mapping[str, Any],
    *,
    mode: str = "",
    status_code: int = 200,
) -> Response:
    """Return the page that template `name` makes of `context`; `mode` is the gateway's, shown."""
    principal = principal_of(request)
    known = {
        "mode": mode,
        "notice": notice_of(request.query_params),
        "principal": principal,
        "csrf": principal.csrf if principal else "",
        "is_operator": principal is not None and principal.role >= Role.OPERATOR,
        "is_admin": principal is not None and principal.is_admin,
    }
    page = render_text(request.scope.get("root_path", ""), name, {**known, **context})
    return HTMLResponse(page, status_code=status_code, headers=PAGE_HEADERS)


def redirect(request: Request, path: str) -> Response:
    """Return the answer that leads to another page, by GET."""
    return RedirectResponse(request.scope.get("root_path", "") + path, status_code=303)


def note_of(form: FormData) -> str:
    """Return an operator's reason for a hold or an end, on one line. Raises Problem."""
    try:
        return read_line(str(form.get("note", "")))
    except ValueError as error:
        raise Problem(400, f"note {error}") from None


def render_text(root_path: str, name: str, context: Mapping[str, Any]) -> str:
    """Return template `name`, filled with `context`, for somebody who is not known."""
    return (
        _environment()
        .get_template(name)
        .render(
            url=lambda path: root_path + path,
            static=lambda name: root_path + static_path(name),
            **context,
        )
    )


_WORDS = {
    "read": "{} marked as read.",
    "unread": "{} marked as unread.",
    "deleted": "{} deleted.",
    "tagged": "Tags of {} changed.",
    "held": "{} held.",
    "released": "{} released: due now.",
    "retried": "{} due now.",
    "trashed": "{} in the trash for seven days.",
    "undeleted": "{} back in the queue: due now.",
    "moved": "{} moved.",
    "expired": "{} expired.",
    "resent": "{} sent again; this is the new one.",
    "captured": "{} captured, not sent; this is the new one.",
    "dropped": "{} dropped, not sent; this is the new one.",
    "suppressed": "The address is suppressed.",
    "lifted": "The address is not suppressed any more.",
    "guard_held": "It is held from now on; {} that waited, too.",
    "guard_released": "It is released; {} due now.",
    "guard_allowed": "It may send more than others; {} due now.",
    "guard_forgot": "It is judged as others again.",
    "hold_set": "It is held from now on; {} waiting.",
    "hold_ended": "The hold has ended; {} due now.",
    "provider_held": "The provider is held.",
    "provider_released": "The provider is released.",
}


def with_notice(path: str, did: str, number: int) -> str:
    """Return `path` so that its page says what was done."""
    given = urlencode({"did": did, "number": number})
    return f"{path}{'&' if '?' in path else '?'}{given}"


def notice_of(parameters: Mapping[str, str]) -> str:
    """Return the words for an action that was done, "" when none was."""
    number = parameters.get("number", "")
    done = _WORDS.get(parameters.get("did", ""))
    if done is None or not (number.isascii() and number.isdigit() and len(number) < 10):
        return ""
    return done.format(words.counted(int(number), "message"))


class Problem(HTTPException):
    """Says what is wrong, what was expected and what to do; its text is for everyone."""

    def __init__(self, status: int, what: str, *, expected: str = "", remedy: str = "") -> None:
        text = what + (f"; expected {expected}" if expected else "")
        super().__init__(status, f"{text}; {remedy}" if remedy else text)
        self.what, self.expected, self.remedy = what, expected, remedy


_GATEWAY_API = "/api/gateway/"
_TITLES = {
    401: "Log in first",
    403: "Not allowed",
    404: "There is nothing here",
    408: "That took too long",
    413: "That is too much",
    429: "Too many attempts",
    503: "The queue does not answer",
}
_REMEDIES = {
    401: "send a user of web.users with HTTP basic, or a token of web.tokens as a bearer token",
    404: "see /api/docs for the addresses there are",
    405: "see /api/docs for the methods there are",
    429: "wait for the time in Retry-After",
    503: "try again in a moment",
}
_log = logging.getLogger("relaygw.web")
_NOT_THERE = "The message may have been deleted, or the address is wrong."


def error_answer(connection: HTTPConnection, error: Exception) -> Response:
    """Return the answer to a request that failed by HTTPException or StoreUnavailable."""
    if not isinstance(error, HTTPException):
        _log.warning("the store does not answer: %s", error)  # why is for the log only
        error = HTTPException(503, "the store does not answer")
    path, status, text = route_path(connection.scope), error.status_code, error.detail
    if path.startswith(_GATEWAY_API):
        problem = error if isinstance(error, Problem) else Problem(status, text)
        told = {"status": status, "what": problem.what, "expected": problem.expected}
        told["remedy"] = problem.remedy or _REMEDIES.get(status, "")
        return JSONResponse({"error": told}, status_code=status, headers=error.headers)
    if status == 404:
        text = NOT_FOUND
    # what htmx asked for is put into a page: a page in a page would be too much
    is_page = "text/html" in connection.headers.get("accept", "") and not (
        is_for_programs(path) or "hx-request" in connection.headers
    )
    if not is_page or connection.scope["type"] != "http" or status < 400:
        return PlainTextResponse(text, status_code=status, headers=error.headers)
    context = {
        "title": _TITLES.get(status) or HTTPStatus(status).phrase,
        "text": _NOT_THERE if status == 404 else text[:1].upper() + text[1:],
    }
    response = render(Request(connection.scope), "error.html", context, status_code=status)
    response.headers.update(error.headers or {})
    return response
