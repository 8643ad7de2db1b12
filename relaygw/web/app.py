"""The web role as one ASGI application: health for everyone, pages and API behind a gate.

The order of an answer: `guards` look at the Host header and at the mode, `access` at who is
asking, then the endpoint runs, then the strict headers go on. Errors are one line of plain
text, or a page in a browser; a store that does not answer is 503, with the reason in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from relaygw.errors import StoreUnavailable
from relaygw.settings.model import Settings
from relaygw.store.store import Store
from relaygw.web.context import WebContext
from relaygw.web.dashboard.health import ReadyCheck, health_routes
from relaygw.web.dashboard.metrics import LocalMetrics, MetricsPage
from relaygw.web.gate.access import Access
from relaygw.web.gate.guards import STRICT_HEADERS, Guards, refusal
from relaygw.web.gate.identity import Identity
from relaygw.web.gate.login import LoginPages
from relaygw.web.mail.html_page import MailPages
from relaygw.web.problem import Problem, error_answer, store_answer
from relaygw.web.routes import api_routes, page_routes
from relaygw.web.sandbox.captured import Arrivals
from relaygw.web.sandbox.index import Indexer

_KEPT_CHARACTERS = 12 * 2**20


def create_app(
    store: Store,
    settings: Settings,
    *,
    indexer: Indexer | None = None,
    is_ready: ReadyCheck | None = None,
    metrics: MetricsPage | None = None,
    stop: asyncio.Event | None = None,
    wake_workers: Callable[[], None] = lambda: None,
) -> Starlette:
    """Return the application; it does not close `store`.

    `is_ready` adds a condition to /readyz: why not, in one line that everyone may read, or
    None. `stop` ends answers that would go on for ever. `wake_workers` lets workers look at the
    queue at once.
    """
    options = settings.web
    instance = settings.hostname if settings.queue.is_postgres else None
    identity = Identity(store, settings)
    web = WebContext(store, settings, indexer or Indexer(store), wake_workers=wake_workers)
    arrivals = Arrivals(web, stop=stop)
    mail_pages = MailPages(limit_characters=_KEPT_CHARACTERS)
    return Starlette(
        routes=[
            *health_routes(store, is_ready, instance),
            *LoginPages(identity).routes(),
            *page_routes(web, mail_pages, arrivals),
            *api_routes(web, mail_pages, arrivals),
            *(metrics.routes() if metrics is not None else ()),
        ],
        middleware=[
            *([Middleware(LocalMetrics, page=metrics, web=options)] if metrics is not None else ()),
            Middleware(
                Guards, hosts=options.hosts, refused=refusal(settings), base_path=options.base_path
            ),
            Middleware(Access, identity=identity),
        ],
        exception_handlers={
            HTTPException: _answer_http_error,
            StoreUnavailable: _answer_unavailable,
            Exception: _answer_failure,
        },
    )


async def _answer_http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return await _answer_failure(request, error)
    problem = error if isinstance(error, Problem) else None
    return error_answer(request, error.status_code, error.detail, error.headers, problem=problem)


async def _answer_unavailable(request: Request, error: Exception) -> Response:
    return store_answer(request, error)


async def _answer_failure(_: Request, __: Exception) -> Response:
    # this answer is made outside of the guards; the server logs the error itself
    return PlainTextResponse("internal error", status_code=500, headers=STRICT_HEADERS)
