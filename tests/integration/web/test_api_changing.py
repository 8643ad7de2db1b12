"""What the API of Mailpit changes: marks, deletion, tags; what it refuses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from relaygw.mail.search import EVERYTHING
from relaygw.mail.state import RecipientState
from relaygw.store.selection import Selection
from relaygw.store.store import Store
from tests.integration.web.people import TOKENS, with_logins

Capture = Callable[..., str]
Serve = Callable[..., Awaitable[httpx2.AsyncClient]]

MAIL = b"From: shop@shop.test\r\nTo: ann@x.test\r\nSubject: Order %d\r\n\r\nhello\r\n"
UNKNOWN = "01JD0000000000000"


@pytest.fixture
def ids(capture: Capture) -> list[str]:
    return [capture(MAIL % number) for number in range(4)]


def unread(store: Store) -> list[str]:
    found = store.sandbox.find_captured(EVERYTHING, start=0, limit=100)
    return [one.entry.subject for one in found if one.entry.read_at_ms is None]


def left(store: Store) -> list[str]:
    return [
        one.entry.subject for one in store.sandbox.find_captured(EVERYTHING, start=0, limit=100)
    ]


async def put(client: httpx2.AsyncClient, path: str, **body: Any) -> httpx2.Response:
    return await client.put(f"/api/v1/{path}", json=body)


async def delete(client: httpx2.AsyncClient, path: str, **body: Any) -> httpx2.Response:
    return await client.request("DELETE", f"/api/v1/{path}", json=body)


async def test_marks(serve: Serve, ids: list[str], store: Store) -> None:
    client = await serve()
    answer = await put(client, "messages", IDs=[ids[1], UNKNOWN], Read=True)
    assert (answer.status_code, answer.text) == (200, "ok")
    assert unread(store) == ["Order 3", "Order 2", "Order 0"]
    await put(client, "messages", Search='subject:"order 3"', Read=True)
    assert unread(store) == ["Order 2", "Order 0"]
    await put(client, "messages", ids=[ids[1]], read=False)  # capitals do not count
    assert unread(store) == ["Order 2", "Order 1", "Order 0"]
    await put(client, "messages", IDs=[], Read=True)
    assert unread(store) == []
    assert (await client.put("/api/v1/messages")).text == "ok"
    assert len(unread(store)) == 4
    both = await put(client, "messages", IDs=ids, Search="order", Read=True)
    assert (both.status_code, both.text) == (400, "write IDs or Search, not both")
    assert len(unread(store)) == 4


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("-after:2026-99-99", "query: 'after:2026-99-99' is not a time; write one like after:"),
        ("!larger:xyz", "query: 'larger:xyz' is not a size; write larger:100k or larger:2M"),
        ("-is:foo", "query: 'is:foo' is not known; write one of is:read is:unread is:tagged"),
        ("-from: ", "query: 'from:' names nothing; write a text after the colon"),
        ("-addressed:*", "query: '-addressed:*' has a *, which stands for itself; write a part"),
        ("order -!!!", "query: '-!!!' leaves nothing out; write letters or digits"),
    ],
)
async def test_a_mistake_changes_nothing(
    serve: Serve, ids: list[str], store: Store, query: str, why: str
) -> None:
    client = await serve()
    for answer in (
        await client.delete("/api/v1/search", params={"query": query}),
        await client.get("/api/v1/search", params={"query": query}),
        await put(client, "messages", Search=query, Read=True),
    ):
        assert answer.status_code == 400
        assert why in answer.text
    assert len(left(store)) == len(unread(store)) == len(ids)


async def test_deletion_by_ids_and_of_all(
    serve: Serve, ids: list[str], store: Store, capture: Capture
) -> None:
    queued = capture(MAIL % 9, state=RecipientState.PENDING)
    client = await serve()
    assert (await delete(client, "messages", IDs=[ids[0], UNKNOWN, queued])).text == "ok"
    assert left(store) == ["Order 3", "Order 2", "Order 1"]
    for nothing in ([UNKNOWN], ["1"], ["", "'; --"]):
        assert (await delete(client, "messages", IDs=nothing)).text == "ok"
        assert len(left(store)) == 3
    assert (await delete(client, "messages", ids=[ids[1]])).text == "ok"
    assert left(store) == ["Order 3", "Order 2"]
    assert (await client.delete("/api/v1/messages")).text == "ok"
    assert left(store) == []
    assert [one.queue_id for one in store.queue.search(Selection(), limit=9)] == [queued]
    lines = [(one.action, one.affected, one.detail) for one in store.audit.entries(limit=9)]
    assert lines == [
        ("sandbox.delete", 2, "api, all"),
        ("sandbox.delete", 1, "api"),
        ("sandbox.delete", 1, "api"),
    ]


async def test_deletion_by_search_has_a_time_zone(
    serve: Serve, ids: list[str], store: Store
) -> None:
    client = await serve()  # all are of 2025-11-25T10:00:00Z

    async def deleted(query: str, **more: str) -> list[str]:
        answer = await client.delete("/api/v1/search", params={"query": query, **more})
        assert (answer.status_code, answer.text) == (200, "ok")
        return left(store)

    assert await deleted('subject:"order 2"') == ["Order 3", "Order 1", "Order 0"]
    noon = "before:2025-11-25T10:30"
    assert len(await deleted(noon, tz="Europe/Berlin")) == 3  # that is 9:30 UTC
    assert await deleted(noon, tz="UTC") == []
    for query in ("", "  "):
        answer = await client.delete("/api/v1/search", params={"query": query})
        assert answer.status_code == 400
    answer = await client.delete("/api/v1/search", params={"query": "x", "tz": "Mars/Base"})
    assert answer.text == "tz is not a time zone: 'Mars/Base'; e.g. Europe/Berlin"


async def test_all_is_all_whatever_the_ids(
    serve: Serve, ids: list[str], store: Store, capture: Capture
) -> None:
    """What was accepted first may be captured last; then the newest has a small id."""
    with store.database.write() as connection:
        connection.connection.exec_driver_sql(
            "UPDATE message SET captured_at_ms = captured_at_ms + 5000 WHERE queue_id = ?",
            (ids[0],),
        )
    client = await serve()
    assert (await client.delete("/api/v1/messages")).text == "ok"
    assert left(store) == []


async def test_tags(serve: Serve, ids: list[str]) -> None:
    client = await serve()
    assert (await put(client, "tags", IDs=ids[:2], Tags=["a,b", " new  shop "])).text == "ok"
    assert (await client.get("/api/v1/tags")).json() == ["a b", "new shop"]
    assert (await put(client, "tags/NEW SHOP", Name="c/d")).text == "ok"
    assert (await client.get("/api/v1/info")).json()["Tags"] == {"a b": 2, "c/d": 2}
    assert (await client.delete("/api/v1/tags/c/d")).text == "ok"
    assert (await client.delete("/api/v1/tags/c/d")).status_code == 404
    assert (await put(client, "tags/none", Name="x")).status_code == 404
    assert (await put(client, "tags", IDs=ids)).text == "ok"
    assert (await client.get("/api/v1/tags")).json() == []
    for tags in ([""], ["x" * 101], [f"t{n}" for n in range(21)]):
        assert (await put(client, "tags", IDs=ids, Tags=tags)).status_code == 400
    assert (await put(client, "tags", IDs=[], Tags=["x"])).status_code == 400
    lone = b'{"IDs": ["%s"], "Tags": ["\\ud800"]}' % ids[0].encode()  # half a character
    assert (await client.put("/api/v1/tags", content=lone)).status_code == 400


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b"[]", 'the body is not a JSON object; e.g. {"IDs": []}'),
        (b'{"IDs": "x"}', "IDs is not a list"),
        (b'{"IDs": [1]}', "IDs is not a list of texts"),
        (b'{"IDs": [%s"x"]}' % (b'"x",' * 20_000), "IDs lists 20001; at most 10000 at a time"),
        (b'{"Read": "yes"}', "Read is not true or false"),
        (b'{"Search": 1}', "Search is not a text"),
    ],
)
async def test_bad_bodies(
    serve: Serve, ids: list[str], store: Store, body: bytes, words: str
) -> None:
    client = await serve()
    answer = await client.put("/api/v1/messages", content=body)
    assert (answer.status_code, answer.text) == (400, words)
    if b"Read" not in body and b"Search" not in body:
        answer = await client.request("DELETE", "/api/v1/messages", content=body)
        assert (answer.status_code, answer.text) == (400, words)
    assert len(unread(store)) == 4


async def test_a_megabyte_of_ids_is_too_much(serve: Serve, ids: list[str], store: Store) -> None:
    client = await serve()
    answer = await delete(client, "messages", IDs=[UNKNOWN] * 60_000)
    assert answer.status_code == 413
    assert len(left(store)) == 4


async def test_a_viewer_changes_nothing(serve: Serve, ids: list[str], store: Store) -> None:
    client = await serve(with_logins())
    client.headers["Authorization"] = f"Bearer {TOKENS['look']}"
    for method, path in (
        ("PUT", "messages"),
        ("DELETE", "messages"),
        ("DELETE", "search?query=order"),
        ("PUT", "tags"),
        ("PUT", "tags/x"),
        ("DELETE", "tags/x"),
        ("POST", "send"),
        ("POST", "message/latest/release"),
    ):
        answer = await client.request(method, f"/api/v1/{path}", json={})
        assert answer.status_code == 403, path
    assert len(unread(store)) == 4
    shown = await client.get("/api/v1/message/latest")
    assert shown.json()["Read"] is True  # a mark of the reader, as in Mailpit
