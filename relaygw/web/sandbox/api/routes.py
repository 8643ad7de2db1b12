"""The addresses of the API."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from relaygw.web.api.gateway.routes import gateway_routes
from relaygw.web.context import Desk
from relaygw.web.mail.html_page import MailPages
from relaygw.web.sandbox.api.changing import Changing
from relaygw.web.sandbox.api.links import check_links
from relaygw.web.sandbox.api.live import Live
from relaygw.web.sandbox.api.reading import Reading
from relaygw.web.sandbox.api.releasing import Releasing
from relaygw.web.sandbox.api.sending import Sending
from relaygw.web.sandbox.api.views import Views
from relaygw.web.sandbox.api.waiting import Waiting
from relaygw.web.sandbox.arrivals import Arrivals

API = "/api/v1"


def api_routes(
    desk: Desk, mail_pages: MailPages, *, stop: asyncio.Event | None = None
) -> list[BaseRoute]:
    """Return the routes of the API; `stop` ends what would go on for ever."""
    reading, changing = Reading(desk), Changing(desk)
    arrivals = Arrivals(desk, stop=stop)
    one = API + "/message/{queue_id}"
    tag = API + "/tags/{tag:path}"
    return [
        Route(API + "/info", reading.show_info, methods=["GET"]),
        Route(API + "/messages", reading.list_messages, methods=["GET"]),
        Route(API + "/messages", changing.mark, methods=["PUT"]),
        Route(API + "/messages", changing.delete, methods=["DELETE"]),
        Route(API + "/search", reading.search, methods=["GET"]),
        Route(API + "/search", changing.delete_found, methods=["DELETE"]),
        Route(API + "/tags", reading.list_tags, methods=["GET"]),
        Route(API + "/tags", changing.set_tags, methods=["PUT"]),
        Route(tag, changing.rename_tag, methods=["PUT"]),
        Route(tag, changing.delete_tag, methods=["DELETE"]),
        Route(API + "/send", Sending(desk).send, methods=["POST"]),
        Route(API + "/chaos", _no_chaos, methods=["GET", "PUT"]),
        Route(one, reading.show_message, methods=["GET"]),
        Route(one + "/headers", reading.show_headers, methods=["GET"]),
        Route(one + "/raw", reading.show_raw, methods=["GET"]),
        Route(one + "/part/{part_id}", reading.show_part, methods=["GET"]),
        Route(one + "/link-check", check_links(desk), methods=["GET"]),
        Route(one + "/release", Releasing(desk).release, methods=["POST"]),
        *_view_routes("/view", Views(desk, mail_pages)),
        # cypress-mailpit 2.0.0 puts two slashes there, which Mailpit takes for one
        *_view_routes("//view", Views(desk, mail_pages)),
        WebSocketRoute("/api/events", Live(desk, arrivals).show),
        Route("/api/gateway/v1/wait", Waiting(desk, arrivals).wait, methods=["GET"]),
        *gateway_routes(desk),
    ]


def _view_routes(path: str, views: Views) -> list[BaseRoute]:
    return [
        Route(path + "/latest", views.show_latest, methods=["GET"]),
        Route(path + "/{queue_id}.html", views.show_html, methods=["GET"]),
        Route(path + "/{queue_id}.txt", views.show_text, methods=["GET"]),
    ]


async def _no_chaos(_: Request) -> Response:
    return PlainTextResponse("Chaos is not enabled", status_code=400)
