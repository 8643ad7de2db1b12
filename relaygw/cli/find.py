"""`relaygw find`: any mail in any state, the newest first."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import click

from relaygw.cli.frame import JSON_LINES, Command, Invocation, limit_option, pass_invocation
from relaygw.cli.messages import print_entries
from relaygw.cli.selection import NOT_EMPTY
from relaygw.mail.search import OUTCOMES, MailSearch, SearchMistake
from relaygw.mail.words import counted
from relaygw.operations.selectors import looked_words, search_of, unfinished

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relaygw.store.find import Found
    from relaygw.store.store import Store

_PAGE = 50
_WORK_S = 2.0
_BATCH = 100


@click.command(cls=Command)
@click.argument("words", metavar="TEXT...", nargs=-1, type=NOT_EMPTY)
@click.option(
    "--result", metavar="R", type=click.Choice(OUTCOMES),
    help=f"Of a recipient: {', '.join(OUTCOMES)}.",
)  # fmt: skip
@click.option(
    "--since", metavar="T", type=NOT_EMPTY,
    help="Accepted since T, or with --result: ended since T: today, 10:30, 6h, a date.",
)  # fmt: skip
@limit_option(_PAGE, "messages")
@JSON_LINES
@pass_invocation
def find(
    invocation: Invocation,
    words: tuple[str, ...],
    result: str | None,
    since: str | None,
    limit: int,
    wants_json: bool,
) -> None:
    """Find mail in any state, newest first.

    TEXT is an address or part of one, a word of the subject, an order number, a queue id, a
    Message-ID or a provider's id, with conditions like is:bounced, user:shop1, after:today.
    """
    if not (words or result or since):
        raise click.UsageError("nothing to find; give TEXT, --result or --since")
    try:
        search = search_of(" ".join(words), result=result or "", since=since or "", tz=None)
    except SearchMistake as mistake:
        raise click.UsageError(str(mistake)) from None
    loaded = invocation.load_running()
    with invocation.open_store(loaded) as store:
        _make_findable(store, loaded.settings.web.link_header)
        _print(store, search, limit=limit, wants_json=wants_json)


def _make_findable(store: Store, link_header: str | None) -> None:
    """Do some of the work of the web role where there is none."""
    until_s = time.monotonic() + _WORK_S
    write = partial(store.find.index_batch, limit=_BATCH, link_header=link_header)
    if not any(instance.role == "web" for instance in store.instances.registered()):
        while write() and time.monotonic() < until_s:
            pass


def _print(store: Store, search: MailSearch, *, limit: int, wants_json: bool) -> None:
    pages = list(_pages(store, search, limit))
    entries = (entry for page in pages for entry in page.entries)
    number = print_entries(entries, wants_json=wants_json)
    if wants_json:
        return
    more = ", more may match" if pages[-1].next else ""
    if number:
        left = "".join(f"; {text}" for text in unfinished(store, search))
        click.echo(f"-- {counted(number, 'message')}{more}{left}")
    else:
        click.echo(f"-- nothing found; {looked_words(store, pages[-1], search)}")


def _pages(store: Store, search: MailSearch, limit: int) -> Iterator[Found]:
    """Yield pages until there are enough messages, or no more."""
    number, before = 0, ""
    while True:
        page = store.find.find(search, limit=limit - number, before=before)
        yield page
        number, before = number + len(page.entries), page.next
        if not before or number >= limit:
            return
