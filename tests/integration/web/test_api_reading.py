"""The API of Mailpit, read: lists, messages, headers, sources and parts."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import httpx2
import pytest

from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import NewRecipient, Source
from relaygw.mail.state import RecipientState
from relaygw.store.store import Store
from tests.builders import accepted

Capture = Callable[..., str]
Serve = Callable[..., Awaitable[httpx2.AsyncClient]]

PLAIN = b"Subject: Order %d\r\nFrom: shop@shop.test\r\nTo: ann@x.test\r\n\r\nText %d\r\n"
FILES = (
    b"Subject: files\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n"
    b"--b\r\nContent-Type: text/csv; charset=iso-8859-1\r\n"
    b"Content-Disposition: attachment; filename*=utf-8''..%2F%C3%A4%22%0d%0a.csv\r\n"
    b"Content-Transfer-Encoding: base64\r\n\r\n5A==\r\n"
    b"--b\r\nContent-Type: text/html\r\nContent-Disposition: attachment\r\n\r\n"
    b"<script>alert(1)</script>\r\n--b--\r\n"
)


async def test_the_list_is_complete_and_newest_first(serve: Serve, capture: Capture) -> None:
    ids = [capture(PLAIN % (n, n), ("ann@x.test", "b@x.test"), user="shop1") for n in range(3)]
    client = await serve()
    answer = await client.get("/api/v1/messages")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "total": 3,
        "unread": 3,
        "count": 3,
        "messages_count": 3,
        "messages_unread": 3,
        "start": 0,
        "tags": [],
        "messages": [
            {
                "ID": ids[n],
                "MessageID": "",
                "Read": False,
                "From": {"Name": "", "Address": "shop@shop.test"},
                "To": [{"Name": "", "Address": "ann@x.test"}],
                "Cc": [],
                "Bcc": [{"Name": "", "Address": "b@x.test"}],
                "ReplyTo": [],
                "Subject": f"Order {n}",
                "Username": "shop1",
                "Tags": [],
                "Size": len(PLAIN % (n, n)),
                "Created": f"2025-11-25T10:00:00.{123 + n}Z",
                "Attachments": 0,
                "Snippet": f"Text {n}",
            }
            for n in (2, 1, 0)
        ],
    }
    assert (await client.get("/api/v1/messages")).json() == answer.json()  # from memory now


async def test_nothing_captured_is_an_empty_list(serve: Serve) -> None:
    client = await serve()
    shown = (await client.get("/api/v1/messages")).json()
    assert (shown["messages"], shown["total"], shown["count"]) == ([], 0, 0)
    latest = await client.get("/api/v1/message/latest")
    assert (latest.status_code, latest.text) == (404, "404 page not found")


async def test_pages_of_the_list(serve: Serve, capture: Capture) -> None:
    ids = [capture(PLAIN % (n, n)) for n in range(53)][::-1]
    client = await serve()

    async def listed(query: str) -> tuple[list[str], int, int]:
        shown = (await client.get(f"/api/v1/messages{query}")).json()
        return [entry["ID"] for entry in shown["messages"]], shown["start"], shown["total"]

    assert await listed("") == (ids[:50], 0, 53)
    assert await listed("?start=50") == (ids[50:], 50, 53)
    assert await listed("?start=1&limit=2") == (ids[1:3], 1, 53)
    assert await listed("?limit=0") == (ids, 0, 53)
    assert await listed("?limit=999999999&start=") == (ids, 0, 53)


@pytest.mark.parametrize(
    "query",
    ["limit=-1", "limit=x", "start=1.5", "start=%00", "limit=99999999999999999999", "start=١"],
)
async def test_bad_numbers_are_refused(serve: Serve, query: str) -> None:
    client = await serve()
    answer = await client.get(f"/api/v1/messages?{query}")
    assert answer.status_code == 400
    assert "is not a number from 0 to 999999999" in answer.text
    assert answer.headers["content-type"].startswith("text/plain")


async def test_a_message_by_id_and_the_latest(serve: Serve, capture: Capture) -> None:
    first = capture(PLAIN % (1, 1))
    last = capture(PLAIN % (2, 2))
    client = await serve()
    shown = (await client.get(f"/api/v1/message/{first}")).json()
    assert (shown["ID"], shown["Text"]) == (first, "Text 1\r\n")
    assert (await client.get("/api/v1/message/latest")).json()["ID"] == last


async def test_opening_marks_as_read_and_nothing_else_does(serve: Serve, capture: Capture) -> None:
    queue_id = capture(PLAIN % (1, 1))
    client = await serve()
    for below in ("/headers", "/raw", "/part/1", "/link-check"):
        await client.get(f"/api/v1/message/latest{below}")
    assert (await client.get("/api/v1/messages")).json()["unread"] == 1
    assert (await client.get(f"/api/v1/message/{queue_id}")).json()["Read"] is True
    shown = (await client.get("/api/v1/messages")).json()
    assert (shown["unread"], shown["messages"][0]["Read"]) == (0, True)
    assert (await client.get("/api/v1/info")).json()["Unread"] == 0


@pytest.mark.parametrize("below", ["", "/headers", "/raw", "/part/0"])
async def test_only_captured_mail_is_there(serve: Serve, capture: Capture, below: str) -> None:
    queued = capture(PLAIN % (1, 1), state=RecipientState.PENDING)
    client = await serve()
    for queue_id in (queued, "latest", "01JD0000000000000", "x", "%27%20OR%201=1--", "..%2f.."):
        answer = await client.get(f"/api/v1/message/{queue_id}{below}")
        assert (answer.status_code, answer.text) == (404, "404 page not found")


async def test_raw_is_the_source_in_all_its_chunks(serve: Serve, capture: Capture) -> None:
    content = b"Subject: big\r\n\r\n" + b"0123456789abcde\r\n" * 200_000
    queue_id = capture(content)
    client = await serve()
    answer = await client.get(f"/api/v1/message/{queue_id}/raw")
    assert answer.content == content
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "content-disposition" not in answer.headers
    saved = await client.get(f"/api/v1/message/{queue_id}/raw?dl=1")
    assert saved.headers["content-disposition"] == f'attachment; filename="{queue_id}.eml"'


async def test_headers_are_a_map_of_lists(serve: Serve, capture: Capture) -> None:
    capture(b"Received: a\r\nReceived: b\r\nMessage-ID: <m@x>\r\nSubject: =?utf-8?q?x?=\r\n\r\n.")
    client = await serve()
    assert (await client.get("/api/v1/message/latest/headers")).json() == {
        "Message-Id": ["<m@x>"],
        "Received": ["a", "b"],
        "Subject": ["=?utf-8?q?x?="],
    }


async def test_parts_are_saved_and_never_shown(serve: Serve, capture: Capture) -> None:
    capture(FILES)
    client = await serve()
    shown = (await client.get("/api/v1/message/latest")).json()
    assert [part["PartID"] for part in shown["Attachments"]] == ["2", "3"]
    table = await client.get("/api/v1/message/latest/part/2")
    assert table.content == b"\xe4"
    assert shown["Attachments"][0]["Checksums"]["MD5"] == hashlib.md5(b"\xe4").hexdigest()
    assert table.text == "ä"
    assert table.headers["content-type"] == "text/csv; charset=iso-8859-1"
    assert table.headers["content-disposition"] == (
        "attachment; filename=\"__ .csv\"; filename*=UTF-8''%C3%A4_%20.csv"
    )
    page = await client.get("/api/v1/message/latest/part/3")
    assert page.headers["content-disposition"].startswith('attachment; filename="part-3"')
    assert page.headers["content-security-policy"] == (
        "default-src 'none'; frame-ancestors 'none'; sandbox"
    )
    assert (await client.get("/api/v1/message/latest/part/4")).status_code == 404


async def test_info_tells_the_counts(serve: Serve, capture: Capture) -> None:
    capture(PLAIN % (1, 1))
    client = await serve()
    shown = (await client.get("/api/v1/info")).json()
    assert (shown["Messages"], shown["Unread"], shown["Tags"]) == (1, 1, {})
    assert shown["Version"].startswith("relaygw ")
    stats = shown["RuntimeStats"]
    assert 10 * 2**20 < stats.pop("Memory") < 2**32
    assert set(stats.values()) == {0}  # it began a moment ago, after that mail


async def test_info_tells_what_was_taken_since_the_start(serve: Serve, store: Store) -> None:
    client = await serve()
    to = NewRecipient(address="b@x.test", state=RecipientState.CAPTURED)
    for listener in ("127.0.0.1:2525", "127.0.0.1:2525", None):  # the last from the maildrop
        source = Source(listener=listener)
        message = accepted(to, at_ms=clock_ms(), content=b"x" * 50, source=source)
        store.intake.accept_batch([message])
    await asyncio.sleep(1.1)
    stats = (await client.get("/api/v1/info")).json()["RuntimeStats"]
    assert (stats["SMTPAccepted"], stats["SMTPAcceptedSize"]) == (2, 100)
    assert 1 <= stats["Uptime"] < 60


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/v1/chaos", "GET, HEAD, PUT"),
        ("/api/v1/messages", "DELETE, GET, HEAD, PUT"),
        ("/api/v1/search", "DELETE, GET, HEAD"),
        ("/api/v1/tags", "GET, HEAD, PUT"),
        ("/api/v1/tags/a/b", "DELETE, PUT"),
        ("/api/v1/send", "POST"),
        ("/sandbox/1M8A85JPFC6TFQAQP/release", "GET, HEAD, POST"),
        ("/login", "GET, HEAD, POST"),
        ("/api/gateway/v1/status", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_told_all_right_ones(serve: Serve, path: str, allowed: str) -> None:
    client = await serve()
    answer = await client.patch(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["message/latest", "message/latest/raw", "info"])
async def test_what_is_read_cannot_be_written(
    serve: Serve, capture: Capture, method: str, path: str
) -> None:
    capture(PLAIN % (1, 1))
    client = await serve()
    answer = await client.request(method, f"/api/v1/{path}", json={"IDs": [], "Read": True})
    assert answer.status_code == 405
    shown = (await client.get("/api/v1/messages")).json()
    assert (shown["total"], shown["unread"]) == (1, 1)


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("word " * 21, "the search has 21 terms; write at most 20"),
        ("x" * 1001, "the search has 1,001 characters; write at most 1,000"),
        ("-", "nothing in it can be looked for; write letters or digits"),
    ],
)
async def test_a_search_that_cannot_be_made_is_an_error_not_an_empty_list(
    serve: Serve, capture: Capture, query: str, why: str
) -> None:
    capture(PLAIN % (1, 1))
    client = await serve()
    answer = await client.get("/api/v1/search", params={"query": query})
    assert answer.status_code == 400
    assert answer.text == f"query: {why}"
