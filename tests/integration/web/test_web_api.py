from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable

import httpx2
import pytest

from relaygw.mail.state import RecipientState
from relaygw.store.protocol import AuditEntry
from relaygw.store.sqlite import SqliteStore
from relaygw.web.pages.desk import MAX_OPENED_BYTES

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


async def test_opening_does_not_mark_read(serve: Serve, capture: Capture) -> None:
    capture(PLAIN % (1, 1))
    client = await serve()
    await client.get("/api/v1/message/latest")
    assert (await client.get("/api/v1/messages")).json()["unread"] == 1
    assert (await client.get("/api/v1/info")).json()["Unread"] == 1


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
    assert set(shown["RuntimeStats"].values()) == {0}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["messages", "message/latest", "message/latest/raw", "info"])
async def test_nothing_can_be_written(
    serve: Serve, capture: Capture, method: str, path: str
) -> None:
    capture(PLAIN % (1, 1))
    client = await serve()
    answer = await client.request(method, f"/api/v1/{path}", json={"IDs": [], "Read": True})
    assert answer.status_code == 405
    assert (await client.get("/api/v1/messages")).json()["unread"] == 1


async def test_content_that_is_gone_leaves_the_envelope(
    serve: Serve, capture: Capture, store: SqliteStore
) -> None:
    queue_id = capture(PLAIN % (1, 1))
    # as a purge of content leaves it, while the row is still captured
    with store._write() as connection:
        connection.exec_driver_sql("DELETE FROM chunk")
    client = await serve()
    shown = (await client.get(f"/api/v1/message/{queue_id}")).json()
    assert (shown["Subject"], shown["Bcc"]) == (
        "Order 1",
        [{"Name": "", "Address": "ann@x.test"}],
    )
    assert "no longer stored" in shown["Text"]
    assert (await client.get(f"/api/v1/message/{queue_id}/raw")).status_code == 404


async def test_a_deleted_message_is_gone(
    serve: Serve, capture: Capture, store: SqliteStore
) -> None:
    queue_id = capture(PLAIN % (1, 1))
    client = await serve()
    await client.get("/api/v1/messages")
    store.delete_captured(
        [queue_id],
        entry=AuditEntry(at_ms=1, actor="a", action="delete", target="t", affected=1, detail=""),
    )
    assert (await client.get("/api/v1/messages")).json()["messages"] == []
    assert (await client.get(f"/api/v1/message/{queue_id}")).status_code == 404


async def test_a_message_too_large_to_parse_is_shown_from_its_start(
    serve: Serve, capture: Capture
) -> None:
    content = b"Subject: huge\r\nTo: ann@x.test\r\n\r\nhello\r\n" + b"x" * MAX_OPENED_BYTES
    capture(content)
    client = await serve()
    shown = (await client.get("/api/v1/message/latest")).json()
    assert shown["Subject"] == "huge"
    assert shown["To"] == [{"Name": "", "Address": "ann@x.test"}]
    assert shown["Text"].startswith("hello\r\n")
    assert f"left out the rest of {len(content)} bytes; /raw has all of them" in shown["Text"]
    assert (await client.get("/api/v1/messages")).json()["messages"][0]["Snippet"][:5] == "hello"


async def test_every_part_of_a_bomb_answers(serve: Serve, capture: Capture) -> None:
    opening = b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n"
    capture(b"".join(opening % (n, n) for n in range(10_000)) + b"\r\nhi\r\n")
    capture(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 1_000_000)
    client = await serve()
    shown = (await client.get("/api/v1/messages")).json()["messages"]
    texts = [(await client.get(f"/api/v1/message/{one['ID']}")).json()["Text"] for one in shown]
    assert "left out everything after 1000 parts" in texts[0]
    assert "left out parts more than 100 levels deep" in texts[1]
