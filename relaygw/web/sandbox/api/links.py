"""The links of a message, as Mailpit's link check lists them; none is ever fetched."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from relaygw.web.context import Desk
from relaygw.web.mail.html_page import MAX_HTML_CHARACTERS, html_part, mail_page
from relaygw.web.mail.mime_tree import MimeTree, load_tree
from relaygw.web.mail.views import ListedLink, listed_links
from relaygw.web.sandbox.api.message_json import Json
from relaygw.web.sandbox.api.reading import found_by, message_of

NOT_FETCHED = "not fetched"


def links_of(message: Json, tree: MimeTree) -> list[ListedLink]:
    """Return the links of HTML, text and header with their real targets."""
    part = html_part(tree)
    html = ""
    if part is not None:
        html, _ = tree.text(part, limit_characters=MAX_HTML_CHARACTERS)
    page = mail_page(html, title="", picture=lambda _: None)
    links, _ = listed_links(page.links, message["Text"], message["ListUnsubscribe"]["Links"])
    return links


def check_links(desk: Desk) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint: each web link with the status 0, for nobody went there."""

    def read(request: Request) -> Response:
        found = found_by(desk, request)
        tree = load_tree(desk.store, found.entry)
        links = links_of(message_of(found, tree), tree)
        web = dict.fromkeys(one.target for one in links if one.is_web)
        listed = [{"URL": url, "StatusCode": 0, "Status": NOT_FETCHED} for url in web]
        return JSONResponse({"Errors": 0, "Links": listed})

    async def show(request: Request) -> Response:
        return await desk.open(lambda: read(request))

    return show
