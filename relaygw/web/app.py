"""The web role as one ASGI application: health for everyone, pages and APIs behind a gate."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Match, Route

from relaygw.errors import StoreUnavailable
from relaygw.passwords import Uses
from relaygw.settings.model import Settings
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.store import Store
from relaygw.web.api.openapi import api_routes
from relaygw.web.context import Endpoint, WebContext
from relaygw.web.dashboard.monitoring import LocalMetrics, MetricsPage, ReadyCheck, health_routes
from relaygw.web.dashboard.overview import Dashboard
from relaygw.web.dashboard.providers import change_provider
from relaygw.web.gate.access import Access
from relaygw.web.gate.guards import STRICT_HEADERS, Guards, refusal
from relaygw.web.gate.identity import Identity, Visits
from relaygw.web.gate.login import LoginPages, show_access
from relaygw.web.indexing import Indexer
from relaygw.web.mail.preview import preview_routes
from relaygw.web.mail.views import content_routes
from relaygw.web.page import error_answer, static_routes
from relaygw.web.queue import pages as queue
from relaygw.web.queue.audit import show_audit
from relaygw.web.queue.found import resend, show_found, show_linked, show_resend
from relaygw.web.queue.holds import change_hold, show_holds
from relaygw.web.queue.selection import queued_of
from relaygw.web.queue.sources import change_guard, show_sources
from relaygw.web.queue.suppression import change_suppression, show_suppression
from relaygw.web.sandbox import changes
from relaygw.web.sandbox.captured import captured_of
from relaygw.web.sandbox.events import Events
from relaygw.web.sandbox.inbox import show_inbox
from relaygw.web.sandbox.message import show_message, show_score, show_visited


def create_app(
    store: Store,
    settings: Settings,
    *,
    indexer: Indexer | None = None,
    is_ready: ReadyCheck | None = None,
    metrics: MetricsPage | None = None,
    stop: asyncio.Event | None = None,
    wake_workers: Callable[[], None] = lambda: None,
    state_dir: Path | None = None,
    uses: Uses | None = None,
    visits: Visits | None = None,
    began_at_ms: int | None = None,
    form_key: bytes | None = None,
    has_worker: bool = False,
) -> Starlette:
    """Return the application; it does not close `store`.

    `is_ready` says why /readyz is not, in a line that everyone may read. `stop` ends answers that
    would go on for ever. `wake_workers` lets workers look at the queue at once. Large content of
    mail that is sent again passes through `state_dir`. `uses` and `visits` are told who asks.
    `began_at_ms`: when the gateway started, as its pages tell it; None: now. `has_worker`: it has a
    delivery of its own.
    """
    uses = {} if uses is None else uses
    identity = Identity(store, settings, uses, visits, form_key)
    instance = settings.hostname if settings.queue.is_postgres else None
    stop, indexer = stop or asyncio.Event(), indexer or Indexer(store)
    state_dir = state_dir or Path(tempfile.gettempdir())
    web = WebContext(store, settings, indexer, wake_workers, stop, state_dir, uses, began_at_ms)
    routes = [
        *health_routes(store, is_ready, instance, has_worker=has_worker),
        *LoginPages(identity).routes(),
        *_page_routes(web),
        *api_routes(web),
    ]
    if metrics is not None:
        routes.append(metrics.route())
    return Starlette(
        routes=routes,
        middleware=[*_middleware(settings, identity, metrics)],
        exception_handlers={
            HTTPException: _answer_error,
            StoreUnavailable: _answer_error,
            Exception: _answer_failure,
        },
    )


def _middleware(
    settings: Settings, identity: Identity, metrics: MetricsPage | None
) -> Iterator[Middleware]:
    options, client = settings.web, identity.forwarded.client
    if metrics is not None:
        yield Middleware(LocalMetrics, page=metrics, web=options, client=client)
    yield Middleware(Guards, web=options, refused=refusal(settings), client=client)
    yield Middleware(Access, identity=identity)


async def _answer_error(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405:
        # of the routes of a path Starlette names the methods of the first one only
        routes = (route for route in request.app.routes if isinstance(route, Route))
        here = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
        allowed = sorted({method for route in here for method in route.methods or ()})
        error = HTTPException(405, error.detail, {"Allow": ", ".join(allowed)})
    return error_answer(request, error)


async def _answer_failure(_: Request, __: Exception) -> Response:
    # this answer is made outside of the guards; the server logs the error itself
    return PlainTextResponse("internal error", status_code=500, headers=STRICT_HEADERS)


def _captured_entry(web: WebContext, request: Request) -> QueueEntry:
    return captured_of(web, request).entry


def _page_routes(web: WebContext) -> list[Route]:
    sandbox, dashboard = "/sandbox/{queue_id}", Dashboard(web)
    pages: tuple[tuple[str, str, Endpoint], ...] = (
        ("POST", "/providers/change", change_provider),
        ("GET", "/audit", show_audit),
        ("GET", "/access", show_access),
        ("GET", "/sources", show_sources),
        ("POST", "/guard/change", change_guard),
        ("GET", "/holds", show_holds),
        ("POST", "/holds/change", change_hold),
        ("GET", "/suppression", show_suppression),
        ("POST", "/suppression/change", change_suppression),
        ("GET", "/find", show_found),
        ("GET", "/mail", show_linked),
        ("GET", "/queue", queue.show_list),
        ("POST", "/queue/change", queue.change),
        ("GET", "/queue/{queue_id}", queue.show_message),
        ("GET", "/queue/{queue_id}/resend", show_resend),
        ("POST", "/queue/{queue_id}/resend", resend),
        ("GET", "/sandbox", show_inbox),
        ("POST", "/sandbox/bulk", changes.change),
        ("POST", "/sandbox/release", changes.release),
        ("GET", sandbox, show_message),
        ("GET", sandbox + "/release", changes.show_release),
        ("POST", sandbox + "/release", changes.release),
        ("POST", sandbox + "/links", show_visited),
        ("GET", sandbox + "/spam", show_score),
    )
    return [
        *static_routes(),
        Route("/", dashboard.show, methods=["GET"]),
        Route("/providers/{name}", dashboard.show_provider, methods=["GET"]),
        Route("/sandbox/events", Events(web).show, methods=["GET"]),
        *(Route(path, partial(show, web), methods=[method]) for method, path, show in pages),
        *(
            route
            for mail_path, find in (("/queue/{queue_id}", queued_of), (sandbox, _captured_entry))
            for routes_of in (content_routes, preview_routes)
            for route in routes_of(web, mail_path, find)
        ),
    ]
