"""The addresses of the pages."""

from __future__ import annotations

import asyncio

from starlette.routing import Route

from relaygw.web.context import Desk
from relaygw.web.dashboard.overview import Dashboard
from relaygw.web.dashboard.provider_changes import ProviderChanges
from relaygw.web.mail.content import MailContent
from relaygw.web.mail.html_page import MailPages
from relaygw.web.page import static_routes
from relaygw.web.queue.audit import AuditPage
from relaygw.web.queue.changes import QueueChanges
from relaygw.web.queue.list import QueueList
from relaygw.web.queue.message import QueueMessagePage
from relaygw.web.sandbox.bulk import Bulk
from relaygw.web.sandbox.events import Events
from relaygw.web.sandbox.inbox import Inbox
from relaygw.web.sandbox.message import MessagePage
from relaygw.web.sandbox.release import ReleasePage


def page_routes(
    desk: Desk, mail_pages: MailPages, *, stop: asyncio.Event | None = None
) -> list[Route]:
    """Return the routes of all pages and of what they are made of.

    `stop` ends the connections of open pages, which would go on for ever.
    """
    inbox, message, release = Inbox(desk), MessagePage(desk, mail_pages), ReleasePage(desk)
    one = "/sandbox/{queue_id}"
    return [
        *static_routes(),
        Route("/", Dashboard(desk).show, methods=["GET"]),
        Route("/providers/change", ProviderChanges(desk).change, methods=["POST"]),
        Route("/audit", AuditPage(desk).show, methods=["GET"]),
        Route("/queue", QueueList(desk).show, methods=["GET"]),
        Route("/queue/change", QueueChanges(desk).change, methods=["POST"]),
        Route("/queue/{queue_id}", QueueMessagePage(desk, mail_pages).show, methods=["GET"]),
        *MailContent(desk, mail_pages, desk.queued).routes("/queue/{queue_id}"),
        Route("/sandbox", inbox.show, methods=["GET"]),
        Route("/sandbox/events", Events(desk, stop=stop).show, methods=["GET"]),
        Route("/sandbox/bulk", Bulk(desk, release).change, methods=["POST"]),
        Route("/sandbox/release", release.release, methods=["POST"]),
        Route(one, message.show, methods=["GET"]),
        *MailContent(desk, mail_pages, desk.captured).routes(one),
        Route(one + "/release", release.show, methods=["GET"]),
        Route(one + "/release", release.release, methods=["POST"]),
    ]
