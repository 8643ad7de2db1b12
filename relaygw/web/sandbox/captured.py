"""Captured mail as pages and API find it, and its checks: of its HTML, links and spam score.

The HTML check asks nobody. Links are visited when an operator says so, and that is audited; the
mail goes to SpamAssassin where `sandbox.spamd` names one.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from starlette.requests import Request

from relaygw.mail.clock import clock_ms
from relaygw.mail.mime_tree import MimeTree
from relaygw.mail.search import Field, MailSearch, Term, parse_search
from relaygw.store.audit import AuditEntry
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.sandbox import CapturedEntry
from relaygw.store.store import read_content
from relaygw.web import words
from relaygw.web.context import WebContext, existing, is_queue_id
from relaygw.web.mail.html_check import HtmlCheck, check_html
from relaygw.web.mail.html_page import MAX_HTML_CHARACTERS, html_part
from relaygw.web.mail.views import ListedLink
from relaygw.web.page import Problem
from relaygw.web.sandbox.link_check import CheckedLink, check_links
from relaygw.web.sandbox.spamd import SpamScore, ask_spamd, check_size

MAX_TAGS = 20  # of a message
MAX_TAG_CHARACTERS = 100


def captured_of(web: WebContext, request: Request) -> CapturedEntry:
    """Return the captured message that the path names; raises 404 if there is none."""
    queue_id = request.path_params["queue_id"]
    return existing(web.store.sandbox.captured_entry(queue_id) if is_queue_id(queue_id) else None)


def read_search(query: str) -> MailSearch:
    """Return the search of a search box; its dates are of this machine's time zone."""
    return parse_search(query, tz=datetime.now().astimezone().tzinfo or UTC)


def before(search: MailSearch, at_ms: int) -> MailSearch:
    """Return a search for what of it was captured up to a time."""
    until = Term(field=Field.BEFORE, number=at_ms)
    return MailSearch(terms=(*search.terms, until), is_void=search.is_void)


def captured_batches(web: WebContext, search: MailSearch, *, limit: int) -> Iterator[list[str]]:
    """Yield the ids of what a search finds, oldest first, `limit` at a time."""
    after = ""
    while found := web.store.sandbox.captured_ids(search, limit=limit, after=after):
        yield found
        if len(found) < limit:
            return
        after = found[-1]


_VISITED = "sandbox.check_links"


def check_page(tree: MimeTree) -> HtmlCheck | None:
    """Return the check of a message's HTML, None where it has none."""
    part = html_part(tree)
    if part is None:
        return None
    return check_html(tree.text(part, limit_characters=MAX_HTML_CHARACTERS)[0])


def visitable(links: list[ListedLink]) -> list[str]:
    """Return the addresses that a check visits: not those of the header, which unsubscribe."""
    targets = (link.target for link in links if link.is_web and link.where != "header")
    return list(dict.fromkeys(targets))


async def visit_links(
    web: WebContext, entry: QueueEntry, urls: list[str], *, actor: str, by: str, follow: bool
) -> list[CheckedLink]:
    """Visit the links of a message for somebody, which is audited first; `by`: web or api."""
    line = AuditEntry(
        at_ms=clock_ms(),
        actor=actor,
        action=_VISITED,
        target=entry.queue_id,
        affected=1,
        detail=f"{by}, {words.counted(len(urls), 'link')}",
    )
    await web.change(lambda: web.store.audit.add(line))
    async with web.outward:
        return await check_links(urls, allowed=web.settings.sandbox.link_hosts, follow=follow)


async def spam_score(web: WebContext, entry: QueueEntry) -> SpamScore:
    """Ask SpamAssassin about a message; raises NoScore, and Problem (404) where none is set."""
    address = web.settings.sandbox.spamd
    if address is None:
        remedy = "write host and port of a spamd there, e.g. 127.0.0.1:783"
        raise Problem(404, "sandbox.spamd is not set", remedy=remedy)
    check_size(entry.size_bytes)
    async with web.spamd:  # who waits holds no content
        content = await web.open(lambda: b"".join(read_content(web.store, entry)))
        return await ask_spamd(address, content)
