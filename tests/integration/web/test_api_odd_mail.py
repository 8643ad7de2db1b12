"""The API on mail that is huge, gone, or made to be heavy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx2

from relaygw.store.audit import AuditEntry
from relaygw.store.store import Store
from relaygw.web.mail.parts import MAX_LOADED_BYTES

Capture = Callable[..., str]
Serve = Callable[..., Awaitable[httpx2.AsyncClient]]

PLAIN = b"Subject: Order %d\r\nFrom: shop@shop.test\r\nTo: ann@x.test\r\n\r\nText %d\r\n"


async def test_content_that_is_gone_leaves_the_envelope(
    serve: Serve, capture: Capture, store: Store
) -> None:
    queue_id = capture(PLAIN % (1, 1))
    # as a purge of content leaves it, while the row is still captured
    with store.database.write() as connection:
        connection.connection.exec_driver_sql("DELETE FROM chunk")
    client = await serve()
    shown = (await client.get(f"/api/v1/message/{queue_id}")).json()
    assert (shown["Subject"], shown["Bcc"]) == (
        "Order 1",
        [{"Name": "", "Address": "ann@x.test"}],
    )
    assert "no longer stored" in shown["Text"]
    assert (await client.get(f"/api/v1/message/{queue_id}/raw")).status_code == 404


async def test_a_deleted_message_is_gone(serve: Serve, capture: Capture, store: Store) -> None:
    queue_id = capture(PLAIN % (1, 1))
    client = await serve()
    await client.get("/api/v1/messages")
    store.sandbox.delete_captured(
        [queue_id],
        entry=AuditEntry(at_ms=1, actor="a", action="delete", target="t", affected=1, detail=""),
    )
    assert (await client.get("/api/v1/messages")).json()["messages"] == []
    assert (await client.get(f"/api/v1/message/{queue_id}")).status_code == 404


async def test_a_message_too_large_to_parse_is_shown_from_its_start(
    serve: Serve, capture: Capture
) -> None:
    content = b"Subject: huge\r\nTo: ann@x.test\r\n\r\nhello\r\n" + b"x" * MAX_LOADED_BYTES
    capture(content)
    client = await serve()
    shown = (await client.get("/api/v1/message/latest")).json()
    assert shown["Subject"] == "huge"
    assert shown["To"] == [{"Name": "", "Address": "ann@x.test"}]
    assert shown["Text"].startswith("hello\r\n")
    assert "left out all but the start; the source is complete" in shown["Text"]
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
