"""The addresses of the gateway's API and of its description."""

from __future__ import annotations

from starlette.routing import Route

from relaygw.operations.queue_actions import ACTIONS
from relaygw.web.api.gateway.docs import DocsPage
from relaygw.web.api.gateway.providers import ProvidersApi
from relaygw.web.api.gateway.queue import QueueApi
from relaygw.web.api.gateway.watching import WatchingApi
from relaygw.web.context import WebContext

API = "/api/gateway/v1"


def gateway_routes(desk: WebContext) -> list[Route]:
    """Return the routes; `wait` stands with what it waits for."""
    queue, providers, watching, docs = (
        QueueApi(desk), ProvidersApi(desk), WatchingApi(desk), DocsPage(desk)
    )  # fmt: skip
    one, provider = API + "/queue/{queue_id}", API + "/providers/{name}"
    return [
        Route(API + "/queue", queue.show_page, methods=["GET"]),
        *(
            Route(f"{API}/queue/{verb.name}", queue.act(verb), methods=["POST"])
            for verb in ACTIONS.values()
        ),
        Route(one, queue.show, methods=["GET"]),
        Route(one + "/explain", queue.explain, methods=["GET"]),
        Route(API + "/providers", providers.show_all, methods=["GET"]),
        Route(provider + "/hold", providers.hold, methods=["POST"]),
        Route(provider + "/release", providers.release, methods=["POST"]),
        Route(API + "/status", watching.status, methods=["GET"]),
        Route(API + "/incidents", watching.incidents, methods=["GET"]),
        Route(API + "/history", watching.history, methods=["GET"]),
        Route(API + "/audit", watching.audit, methods=["GET"]),
        Route("/api/docs", docs.show, methods=["GET"]),
        Route("/api/docs/openapi.json", docs.show_document, methods=["GET"]),
    ]
