"""The addresses of the pages."""

from __future__ import annotations

import asyncio

from starlette.routing import Route

from relaygw.web.pages.bulk import Bulk
from relaygw.web.pages.contents import MailPages
from relaygw.web.pages.desk import Desk
from relaygw.web.pages.events import Events
from relaygw.web.pages.frame import Frame
from relaygw.web.pages.inbox import Inbox
from relaygw.web.pages.message import MessagePage
from relaygw.web.pages.release import ReleasePage
from relaygw.web.pages.static_files import static_routes


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
        Route("/", inbox.go_to_list, methods=["GET"]),
        Route("/sandbox", inbox.show, methods=["GET"]),
        Route("/sandbox/events", Events(desk, stop=stop).show, methods=["GET"]),
        Route("/sandbox/bulk", Bulk(desk, release).change, methods=["POST"]),
        Route("/sandbox/release", release.release, methods=["POST"]),
        Route(one, message.show, methods=["GET"]),
        Route(one + "/html", Frame(desk, mail_pages).show, methods=["GET"]),
        Route(one + "/source", message.show_source, methods=["GET"]),
        Route(one + "/part/{part_id}", message.show_part, methods=["GET"]),
        Route(one + "/release", release.show, methods=["GET"]),
        Route(one + "/release", release.release, methods=["POST"]),
    ]
