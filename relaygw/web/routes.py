"""The addresses of pages and APIs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from relaygw.web.api.openapi import gateway_routes
from relaygw.web.context import WebContext
from relaygw.web.dashboard.overview import Dashboard
from relaygw.web.dashboard.providers import ProviderChanges
from relaygw.web.mail.content import MailContent
from relaygw.web.mail.html_page import MailPages
from relaygw.web.page import static_routes
from relaygw.web.queue.audit import AuditPage
from relaygw.web.queue.changes import QueueChanges
from relaygw.web.queue.list import QueueList
from relaygw.web.queue.message import QueueMessagePage
from relaygw.web.queue.selection import queued_of
from relaygw.web.sandbox.api.changes import Changes
from relaygw.web.sandbox.api.events import Live
from relaygw.web.sandbox.api.messages import Messages, OneMessage
from relaygw.web.sandbox.api.send import Send
from relaygw.web.sandbox.api.wait import Wait
from relaygw.web.sandbox.bulk import Bulk
from relaygw.web.sandbox.captured import Arrivals, captured_of
from relaygw.web.sandbox.events import Events
from relaygw.web.sandbox.inbox import Inbox
from relaygw.web.sandbox.message import MessagePage
from relaygw.web.sandbox.release import ReleasePage

API = "/api/v1"


def page_routes(web: WebContext, mail_pages: MailPages, arrivals: Arrivals) -> list[Route]:
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
        Route("/sandbox/release", release.release, methods=["POST"]),
        Route(one, message.show, methods=["GET"]),
        *MailContent(web, mail_pages, lambda request: captured_of(web, request).entry).routes(one),
        Route(one + "/release", release.show, methods=["GET"]),
        Route(one + "/release", release.release, methods=["POST"]),
    ]


def api_routes(web: WebContext, mail_pages: MailPages, arrivals: Arrivals) -> list[BaseRoute]:
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
        Route(one + "/release", changes.release, methods=["POST"]),
        *message.view_routes("/view"),
        # cypress-mailpit 2.0.0 puts two slashes there, which Mailpit takes for one
        *message.view_routes("//view"),
        WebSocketRoute("/api/events", Live(web, arrivals).show),
        Route("/api/gateway/v1/wait", Wait(web, arrivals).wait, methods=["GET"]),
        *gateway_routes(web),
    ]


async def _no_chaos(_: Request) -> Response:
    return PlainTextResponse("Chaos is not enabled", status_code=400)
