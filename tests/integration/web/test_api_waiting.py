"""/api/gateway/v1/wait: a test waits for a mail and gets its codes and links."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import httpx2
import pytest

from tests.integration.web.conftest import FIRST_AT_MS
from tests.integration.web.people import TOKENS, with_logins
from tests.plain_http import plain_client

Capture = Callable[..., str]
Serve = Callable[..., Awaitable[httpx2.AsyncClient]]

WAIT = "/api/gateway/v1/wait"
MAIL = (
    b"From: Shop <shop@shop.test>\r\nTo: %s\r\nSubject: %s\r\n"
    b'Content-Type: multipart/alternative; boundary="b"\r\n\r\n'
    b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n%s\r\n"
    b"--b\r\nContent-Type: text/html\r\n\r\n"
    b'<p><a href="https://shop.test/confirm?t=9&amp;u=1">Confirm</a></p>\r\n--b--\r\n'
)


def mail(to: str, subject: str = "Welcome", text: str = "Your code: 123 456") -> bytes:
    return MAIL % (to.encode(), subject.encode(), text.encode())


async def test_a_mail_that_arrives_while_waiting(serve: Serve, capture: Capture) -> None:
    client = await serve()
    capture(mail("joann@x.test"), ("joann@x.test",))
    waiting = asyncio.create_task(client.get(WAIT, params={"to": "Ann@X.test", "timeout": "30s"}))
    other = asyncio.create_task(client.get(WAIT, params={"subject": "invoice", "timeout": "30s"}))
    await asyncio.to_thread(capture, mail("joann@x.test"), ("joann@x.test",))
    queue_id = await asyncio.to_thread(capture, mail("ann@x.test"), ("ann@x.test",))
    answer = await waiting
    assert answer.status_code == 200
    shown = answer.json()
    assert shown["message"]["ID"] == queue_id
    assert shown["message"]["Read"] is False
    assert shown["codes"] == ["123456"]
    assert shown["links"] == [
        {"url": "https://shop.test/confirm?t=9&u=1", "text": "Confirm", "where": "HTML"}
    ]
    await asyncio.to_thread(capture, mail("b@x.test", "Your invoice"), ("b@x.test",))
    assert (await other).json()["message"]["Subject"] == "Your invoice"


async def test_a_mail_that_is_there_already(serve: Serve, capture: Capture) -> None:
    first = capture(mail("ann@x.test", "First"), ("ann@x.test",))
    last = capture(mail("ann@x.test", "Last"), ("ann@x.test", "hidden@x.test"))
    client = await serve()

    async def found(**query: str) -> str:
        answer = await client.get(WAIT, params={"timeout": "0s", **query})
        told = answer.json()
        return told["message"]["ID"] if answer.status_code == 200 else told["error"]["what"]

    assert await found(to="ann@x.test") == last
    assert await found(to="ann@x.test", subject="first") == first
    assert await found(to="hidden@x.test") == last
    assert await found(**{"from": "shop@"}) == last
    assert await found(query="subject:first -tag:x") == first
    assert await found(to="shop@shop.test") == "no such mail within 0 s"  # that is the sender
    assert await found(to="x.test") == "no such mail within 0 s"
    since = str(FIRST_AT_MS + 1)
    assert await found(to="ann@x.test", since=since) == last
    assert await found(subject="first", since=since) == "no such mail within 0 s"


async def test_many_addresses_that_end_alike_hide_nothing(serve: Serve, capture: Capture) -> None:
    queue_id = capture(mail("ann@x.test"), ("ann@x.test",))
    for _ in range(45):
        capture(mail("joann@x.test"), ("joann@x.test",))
    client = await serve()
    answer = await client.get(WAIT, params={"to": "ann@x.test", "timeout": "10s"})
    assert answer.json()["message"]["ID"] == queue_id


async def test_nothing_comes(serve: Serve) -> None:
    client = await serve()
    began_s = time.monotonic()
    answer = await client.get(WAIT, params={"to": "ann@x.test", "timeout": "300ms"})
    assert time.monotonic() - began_s >= 0.3
    told = answer.json()["error"]
    assert (answer.status_code, told["what"]) == (408, "no such mail within 0.3 s")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({}, "nothing to wait for"),
        ({"to": ""}, "nothing to wait for"),
        ({"recipient": "x"}, "parameter 'recipient' is not known"),
        ({"to": "x", "timeout": "10"}, "timeout '10' is not a duration; write e.g. 30s"),
        ({"to": "x", "timeout": "3m"}, "timeout '3m' is too long"),
        ({"to": "x", "since": "soon"}, "since 'soon' is not a time"),
        ({"subject": "()"}, "subject '()' is too long, or has no word"),
        ({"query": "-"}, "query: nothing in it can be looked for"),
        ({"query": "x" * 1001}, "query: the search has 1,001 characters"),
        ({"query": "-after:xx"}, "query: 'after:xx' is not a time"),
    ],
)
async def test_bad_questions(serve: Serve, query: dict[str, str], words: str) -> None:
    client = await serve()
    answer = await client.get(WAIT, params=query)
    assert answer.status_code == 400
    told = answer.json()["error"]
    assert words in told["what"]
    assert told["expected"]


async def test_not_more_than_fifty_wait(serve: Serve) -> None:
    client = await serve()
    limits = httpx2.Limits(max_connections=60)
    async with plain_client(base_url=client.base_url, limits=limits, timeout=60) as many:
        asked = [many.get(WAIT, params={"to": "ann@x.test", "timeout": "3s"}) for _ in range(52)]
        statuses = [answer.status_code for answer in await asyncio.gather(*asked)]
    assert sorted(statuses) == [408] * 50 + [503] * 2
    again = await client.get(WAIT, params={"to": "ann@x.test", "timeout": "0s"})
    assert again.status_code == 408


async def test_it_asks_for_a_login(serve: Serve, capture: Capture) -> None:
    capture(mail("ann@x.test"))
    client = await serve(with_logins())
    query = {"to": "ann@x.test"}
    assert (await client.get(WAIT, params=query)).status_code == 401
    token = {"Authorization": f"Bearer {TOKENS['look']}"}
    assert (await client.get(WAIT, params=query, headers=token)).status_code == 200
