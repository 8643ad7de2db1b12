"""The web role as one ASGI application: health for everyone, captured mail behind guards.

The order of an answer: `guards` look at the Host header and at the mode, then the endpoint
runs, then the strict headers go on. Errors are one line of plain text; a store that does not
answer is 503, and the reason goes to the log, not to the client.
"""

from __future__ import annotations

import logging

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from relaygw.errors import StoreUnavailable
from relaygw.settings.model import Settings
from relaygw.store.protocol import Store
from relaygw.web.guards import STRICT_HEADERS, Guards, refusal
from relaygw.web.health import ReadyCheck, health_routes
from relaygw.web.sandbox_api import SandboxApi

_log = logging.getLogger("relaygw.web")

_FRONT_PAGE = """relaygw

Captured mail (compatible with a subset of Mailpit's API, for reading):
  /api/v1/messages
  /api/v1/message/ID, or /latest in the place of ID, with /headers /raw /part/PART below
  /api/v1/info
Health:
  /healthz  this process answers
  /readyz   mail is taken
"""


def create_app(
    store: Store, settings: Settings, *, is_ready: ReadyCheck | None = None
) -> Starlette:
    """Return the application; it never writes to `store` and does not close it.

    `is_ready` adds a condition to /readyz: why not, in one line that everyone may read, or
    None.
    """
    refused = refusal(settings)
    instance = settings.hostname if settings.queue.is_postgres else None
    return Starlette(
        routes=[
            Route("/", _show_front_page),
            *health_routes(store, is_ready, instance),
            *SandboxApi(store).routes(),
        ],
        middleware=[Middleware(Guards, hosts=settings.web.hosts, refused=refused)],
        exception_handlers={
            HTTPException: _answer_http_error,
            StoreUnavailable: _answer_unavailable,
            Exception: _answer_failure,
        },
    )


async def _show_front_page(_: Request) -> Response:
    return PlainTextResponse(_FRONT_PAGE)


async def _answer_http_error(_: Request, error: Exception) -> Response:
    status, text, headers = 500, "", None
    if isinstance(error, HTTPException):
        status, text, headers = error.status_code, error.detail, error.headers
    if status == 404:
        text = "404 page not found"
    return PlainTextResponse(text, status_code=status, headers=headers)


async def _answer_unavailable(_: Request, error: Exception) -> Response:
    _log.warning("the store does not answer: %s", error)
    return PlainTextResponse("the store does not answer", status_code=503)


async def _answer_failure(_: Request, error: Exception) -> Response:
    # this answer is made outside of the guards; the server logs the error itself
    return PlainTextResponse("internal error", status_code=500, headers=STRICT_HEADERS)
