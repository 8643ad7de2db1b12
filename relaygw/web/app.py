"""The web role as one ASGI application: health for everyone, pages and APIs behind a gate.

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
from starlette.routing import BaseRoute, Route, WebSocketRoute

from relaygw.errors import StoreUnavailable
from relaygw.settings.model import Settings
from relaygw.store.store import Store
from relaygw.web.api.openapi import gateway_routes
from relaygw.web.context import WebContext
from relaygw.web.dashboard.monitoring import LocalMetrics, MetricsPage, ReadyCheck, health_routes
from relaygw.web.dashboard.overview import Dashboard
from relaygw.web.dashboard.providers import ProviderChanges
from relaygw.web.gate.access import Access
from relaygw.web.gate.guards import STRICT_HEADERS, Guards, refusal
from relaygw.web.gate.identity import Identity
from relaygw.web.gate.login import LoginPages
from relaygw.web.mail.content import MailContent
from relaygw.web.mail.html_page import MailPages
from relaygw.web.page import Problem, error_answer, static_routes, store_answer
from relaygw.web.queue.pages import AuditPage, QueueChanges, QueueList, QueueMessagePage
from relaygw.web.queue.selection import queued_of
from relaygw.web.sandbox.api.changes import Changes
from relaygw.web.sandbox.api.events import Live
from relaygw.web.sandbox.api.messages import Messages, OneMessage
from relaygw.web.sandbox.api.send import Send
from relaygw.web.sandbox.api.wait import Wait
from relaygw.web.sandbox.captured import Arrivals, captured_of
from relaygw.web.sandbox.changes import Bulk, ReleasePage
from relaygw.web.sandbox.events import Events
from relaygw.web.sandbox.inbox import Inbox
from relaygw.web.sandbox.index import Indexer
from relaygw.web.sandbox.message import MessagePage

API = "/api/v1"
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
            *_page_routes(web, mail_pages, arrivals),
            *_api_routes(web, mail_pages, arrivals),
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


def _page_routes(web: WebContext, mail_pages: MailPages, arrivals: Arrivals) -> list[Route]:
    """Return the routes of all pages and of what they are made of."""
    inbox, message, release = Inbox(web), MessagePage(web, mail_pages), ReleasePage(web)
    one = "/sandbox/{queue_id}"
    return [
        *static_routes(),
        Route("/", Dashboard(web).show, methods=["GET"]),
        Route("/providers/change", ProviderChanges(web).change, methods=["POST"]),
        Route("/audit", AuditPage(web).show, methods=["GET"]),
        Route("/queue", QueueList(web).show, methods=["GET"]),
        Route("/queue/change", QueueChanges(web).change, methods=["POST"]),
        Route("/queue/{queue_id}", QueueMessagePage(web, mail_pages).show, methods=["GET"]),
        *MailContent(web, mail_pages, lambda request: queued_of(web, request)).routes(
            "/queue/{queue_id}"
        ),
        Route("/sandbox", inbox.show, methods=["GET"]),
        Route("/sandbox/events", Events(web, arrivals).show, methods=["GET"]),
        Route("/sandbox/bulk", Bulk(web, release).change, methods=["POST"]),
        Route("/sandbox/release", release.release_chosen, methods=["POST"]),
        Route(one, message.show, methods=["GET"]),
        *MailContent(web, mail_pages, lambda request: captured_of(web, request).entry).routes(one),
        Route(one + "/release", release.show, methods=["GET"]),
        Route(one + "/release", release.release_chosen, methods=["POST"]),
    ]


def _api_routes(web: WebContext, mail_pages: MailPages, arrivals: Arrivals) -> list[BaseRoute]:
    """Return the routes of the APIs."""
    messages, message, changes = Messages(web), OneMessage(web, mail_pages), Changes(web)
    one = API + "/message/{queue_id}"
    tag = API + "/tags/{tag:path}"
    return [
        Route(API + "/info", messages.show_info, methods=["GET"]),
        Route(API + "/messages", messages.list_messages, methods=["GET"]),
        Route(API + "/messages", changes.mark, methods=["PUT"]),
        Route(API + "/messages", changes.delete, methods=["DELETE"]),
        Route(API + "/search", messages.search, methods=["GET"]),
        Route(API + "/search", changes.delete_found, methods=["DELETE"]),
        Route(API + "/tags", messages.list_tags, methods=["GET"]),
        Route(API + "/tags", changes.set_tags, methods=["PUT"]),
        Route(tag, changes.rename_tag, methods=["PUT"]),
        Route(tag, changes.delete_tag, methods=["DELETE"]),
        Route(API + "/send", Send(web).send, methods=["POST"]),
        Route(API + "/chaos", _no_chaos, methods=["GET", "PUT"]),
        Route(one, message.show, methods=["GET"]),
        Route(one + "/headers", message.show_headers, methods=["GET"]),
        Route(one + "/raw", message.show_raw, methods=["GET"]),
        Route(one + "/part/{part_id}", message.show_part, methods=["GET"]),
        Route(one + "/link-check", message.check_links, methods=["GET"]),
        Route(one + "/release", changes.release_message, methods=["POST"]),
        *message.view_routes("/view"),
        # cypress-mailpit 2.0.0 puts two slashes there, which Mailpit takes for one
        *message.view_routes("//view"),
        WebSocketRoute("/api/events", Live(web, arrivals).show),
        Route("/api/gateway/v1/wait", Wait(web, arrivals).wait, methods=["GET"]),
        *gateway_routes(web),
    ]


async def _no_chaos(_: Request) -> Response:
    return PlainTextResponse("Chaos is not enabled", status_code=400)
