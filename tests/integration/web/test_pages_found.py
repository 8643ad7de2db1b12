"""One search over all mail, in the header of every page, in a browser without scripts."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from relaygw.mail.state import RecipientState
from relaygw.store.store import Store
from tests.integration.web.conftest import sandbox
from tests.integration.web.queued import defer, deliver, gateway, queue_mail
from tests.integration.web.test_pages_queue import HOSTILE, ended, log_in, subjects

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]
R = RecipientState


@pytest.mark.parametrize("name", ["vera", "otto", "anna"])
async def test_a_customers_address_finds_all_that_there_is(
    serve: Serve, store: Store, name: str
) -> None:
    """What a support person does: one search, in the box that every page has."""
    queue_mail(store, "order", "anna.berg@cust.test")
    deliver(store)
    bounced = ended(store, "gone", R.BOUNCED, sender="anna.berg@cust.test")
    waits = queue_mail(store, "later", "anna.berg@cust.test", "ben@cust.test")
    defer(store)
    queue_mail(store, "other", "ben@cust.test")
    client = await log_in(await serve(gateway()), name)
    for path in ("/", "/queue", "/audit", f"/queue/{waits}", "/sandbox?query=x", "/api/docs",
                 "/mail?order=7", "/nowhere"):  # fmt: skip
        page = (await client.get(path, headers={"accept": "text/html"})).text
        form = r'<form class="search" role="search" aria-label="All mail" action="/find"'
        assert len(re.findall(form, page)) == 1, path
        assert '<input id="search" type="search" name="q" value=""' in page
    page = (await client.get("/find", params={"q": " Anna.Berg@cust.test "})).text
    assert subjects(page) == ["later", "gone", "order"]
    assert re.findall(r'class="state ([^"]+)">([^<]+)<', page) == [
        ("state-waiting", "deferred"),
        ("state-failed", "bounced"),
        ("state-sent", "delivered"),
    ]
    assert f'href="/queue/{bounced}"' in page
    assert 'value="Anna.Berg@cust.test"' in page
    assert 'name="tick"' not in page


async def test_captured_mail_leads_to_the_sandbox(serve: Serve, store: Store) -> None:
    whole = ended(store, "whole", R.CAPTURED)
    in_part = ended(store, "part", R.CAPTURED, R.DELIVERED)
    page = (await (await serve()).get("/find?q=cust.test")).text
    assert re.findall(r'class="mail-subject"[^>]*href="([^"]+)"', page) == [
        f"/queue/{in_part}",
        f"/sandbox/{whole}",
    ]


async def test_nothing_found_says_where_it_looked(serve: Serve, store: Store) -> None:
    queue_mail(store)
    page = (await (await serve()).get("/find?q=zebra")).text
    assert "Nothing found" in page
    assert "searched queue ids, addresses, subjects, Message-IDs and providers&#39; ids" in page
    assert "of all mail, in every state" in page


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("after:soon", "<h2>&#39;after:soon&#39; is not a time</h2>"),
        ("uid:www-data", "<h2>&#39;uid:www-data&#39; is not a number</h2>"),
        ("client:10.0.0.0/8", "<h2>&#39;client:10.0.0.0/8&#39; is a network</h2>"),
        ("-is:lost", "<h2>&#39;is:lost&#39; is not known</h2>"),
        ("x" * 1200, "The search has 1,001 characters</h2>"),
        (HOSTILE, "Nothing found"),
        ("\0x", "The search is not valid text</h2>"),
        ("\ufffd", "The search is not valid text</h2>"),
        ('subject:"on "its" way"', "has quotes within quotes</h2>"),
    ],
)
async def test_what_cannot_be_found_is_said_on_the_page(
    serve: Serve, query: str, words: str
) -> None:
    answer = await (await serve()).get("/find", params={"q": query})
    assert answer.status_code == 200
    assert words in answer.text
    assert "<img src=x" not in answer.text


async def test_no_place_is_an_error(serve: Serve) -> None:
    answer = await (await serve()).get("/find?q=x&before=nowhere")
    assert answer.status_code == 400


async def test_pages_and_filters(serve: Serve, store: Store) -> None:
    for number in range(70):
        result = R.BOUNCED if number % 2 else R.DELIVERED
        ended(store, f"number {number}", result, age_s=1000 - number)
    client = await serve()
    seen: list[str] = []
    path = "/find?q=number"
    while path:
        page = (await client.get(path)).text
        seen += subjects(page)
        following = re.search(r'rel="next" href="([^"]+)"', page)
        path = following[1].replace("&amp;", "&") if following else ""
    assert seen == [f"number {number}" for number in reversed(range(70))]
    page = (await client.get("/find?q=number+is:delivered")).text
    filters: dict[str, Any] = {
        label: path.replace("&amp;", "&")
        for path, label in re.findall(
            r'<a href="(/find[^"]*)"(?: aria-current="true")?>(\w+)', page
        )
    }
    assert filters["Bounced"] == "/find?q=number+is%3Abounced"
    assert filters["Delivered"] == "/find?q=number"
    page = (await client.get(filters["Bounced"])).text
    assert len(subjects(page)) == 35


async def test_who_finds_mail(serve: Serve, store: Store) -> None:
    queue_mail(store, "secret order")
    client = await serve(gateway())
    answer = await client.get("/find?q=order")
    assert (answer.status_code, answer.headers["location"][:11]) == (303, "/login?next")
    assert "secret" not in answer.text


async def test_below_a_path(serve: Serve, store: Store) -> None:
    queue_mail(store)
    page = (await (await serve(sandbox(base_path="/mail"))).get("/mail/find?q=hello")).text
    assert subjects(page) == ["hello"]
    outside = re.findall(r'(?:href|action|src|hx-get)="(/(?!mail/)[^"]*)"', page)
    assert outside == []
