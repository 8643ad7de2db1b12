"""Live lists: what an open page is told, and when."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from relaygw.mail.clock import clock_ms
from relaygw.store.audit import AuditEntry
from relaygw.store.store import Store
from relaygw.web.app import create_app
from relaygw.web.gate import credentials
from relaygw.web.sandbox import events
from relaygw.web.server import serve_web
from tests.integration.web.conftest import sandbox
from tests.integration.web.people import PASSWORDS, with_logins
from tests.plain_http import plain_client

Capture = Callable[..., str]
Serve = Callable[..., Awaitable[httpx2.AsyncClient]]

CONTENT = b"From: shop@x.test\r\nTo: ann@x.test\r\nSubject: %s\r\n\r\nhello\r\n"
PATIENCE_S = 60.0


class Told:
    """The events of one open page."""

    def __init__(self, answer: httpx2.Response) -> None:
        self.answer = answer
        self.lines = answer.aiter_lines()
        self.last_id = ""

    async def next(self) -> dict[str, Any]:
        """Return the next change."""
        async with asyncio.timeout(PATIENCE_S):
            async for line in self.lines:
                name, _, value = line.partition(": ")
                if name == "id":
                    self.last_id = value
                elif name == "data":
                    return dict(json.loads(value))
        raise AssertionError("the events have ended")

    async def until(self, is_wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first change that is wanted."""
        while True:
            change = await self.next()
            if is_wanted(change):
                return change

    async def ends(self) -> None:
        """Wait for the end."""
        async with asyncio.timeout(PATIENCE_S):
            async for _ in self.lines:
                pass


@asynccontextmanager
async def listening(
    client: httpx2.AsyncClient, last: str = "", query: str = "", **headers: str
) -> AsyncIterator[Told]:
    parameters = {"last": last, "query": query}
    async with client.stream(
        "GET", "/sandbox/events", params=parameters, headers=headers
    ) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        yield Told(answer)


async def log_in(client: httpx2.AsyncClient, name: str) -> None:
    answer = await client.post("/login", data={"name": name, "password": PASSWORDS[name]})
    assert answer.status_code == 303


def ids(change: dict[str, Any]) -> list[str]:
    return [row["id"] for row in change["rows"]]


async def test_new_mail_is_told_with_its_line(serve: Serve, capture: Capture) -> None:
    client = await serve()
    shown = capture(CONTENT % b"shown")
    async with listening(client, last=shown) as told:
        first = await told.next()
        assert ids(first) == []
        assert (first["total"], first["unread"], first["found"]) == (1, 1, 1)
        new = capture(CONTENT % b"<b>new</b>")
        change = await told.until(lambda change: bool(change["rows"]))
        assert ids(change) == [new]
        assert f'id="m-{new}"' in change["rows"][0]["html"]
        assert "&lt;b&gt;new&lt;/b&gt;" in change["rows"][0]["html"]
        assert change["total"] == 2
        assert told.last_id == new


async def test_new_mail_is_told_within_half_a_second(serve: Serve, capture: Capture) -> None:
    client = await serve()
    async with listening(client) as told:
        await told.next()
        took_s = []
        for number in range(5):
            began_s = time.monotonic()
            capture(CONTENT % b"%d" % number)
            await told.until(lambda change: bool(change["rows"]))
            took_s.append(time.monotonic() - began_s)
        assert min(took_s) < 0.5, took_s


async def test_mail_between_the_page_and_its_events_is_told(serve: Serve, capture: Capture) -> None:
    client = await serve()
    shown, missed = capture(CONTENT % b"shown"), capture(CONTENT % b"missed")
    async with listening(client, last=shown) as told:
        assert ids(await told.next()) == [missed]


async def test_a_lost_connection_goes_on_where_it_was(serve: Serve, capture: Capture) -> None:
    client = await serve()
    shown, missed = capture(CONTENT % b"shown"), capture(CONTENT % b"missed")
    async with listening(client, last="", **{"Last-Event-ID": shown}) as told:
        assert ids(await told.next()) == [missed]


async def test_more_than_a_page_is_a_reload(serve: Serve, capture: Capture) -> None:
    client = await serve()
    for number in range(events.PAGE_ROWS + 1):
        capture(CONTENT % b"%d" % number)
    async with listening(client) as told:
        change = await told.next()
        assert change["reload"]
        assert change["rows"] == []


async def test_only_what_the_search_of_the_page_finds(serve: Serve, capture: Capture) -> None:
    client = await serve()
    async with (
        listening(client, query="subject:order") as orders,
        listening(client, query="is:unread") as unread,
    ):
        await orders.next()
        await unread.next()
        invoice, order = capture(CONTENT % b"invoice"), capture(CONTENT % b"order")
        change = await orders.until(lambda change: change["found"] == 1)
        assert ids(change) == [order] or order in change["rows"][0]["id"]
        assert invoice not in json.dumps(change["rows"])
        await unread.until(lambda change: change["found"] == 2)


async def test_what_is_read_and_what_is_gone_is_told(
    serve: Serve, capture: Capture, store: Store
) -> None:
    client = await serve()
    one, two = capture(CONTENT % b"one"), capture(CONTENT % b"two")
    async with listening(client, last=two) as told:
        await told.next()
        await client.get(f"/sandbox/{one}")
        change = await told.until(lambda change: bool(change["read"]))
        assert change["read"] == {one: True}
        assert change["unread"] == 1
        entry = AuditEntry(
            at_ms=1, actor="x", action="sandbox.delete", target=two, affected=1, detail=""
        )
        store.sandbox.delete_captured([two], entry=entry)
        change = await told.until(lambda change: bool(change["gone"]))
        assert change["gone"] == [two]
        assert change["total"] == 1


async def test_what_was_pushed_off_the_first_page_is_not_gone(
    serve: Serve, capture: Capture
) -> None:
    client = await serve()
    shown = [capture(CONTENT % b"%d" % number) for number in range(events.PAGE_ROWS)]
    async with listening(client, last=shown[-1]) as told:
        await told.next()
        capture(CONTENT % b"one more")
        change = await told.until(lambda change: bool(change["rows"]))
        assert change["gone"] == []


async def test_nobody_looks_when_nobody_listens(
    serve: Serve, capture: Capture, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await serve()
    loop, many, looks = asyncio.get_running_loop(), asyncio.Event(), 0
    real = store.sandbox.count_captured

    def counting(*arguments: Any) -> tuple[int, int]:
        nonlocal looks
        looks += 1
        if looks == 5:
            loop.call_soon_threadsafe(many.set)
        return real(*arguments)

    monkeypatch.setattr(store.sandbox, "count_captured", counting)
    async with listening(client) as told:
        await told.next()
        await many.wait()
        (watching,) = (task for task in asyncio.all_tasks() if task.get_name() == "sandbox events")
    await watching
    # somebody comes back: it goes on
    async with listening(client) as told:
        await told.next()
        capture(CONTENT % b"new")
        await told.until(lambda change: bool(change["rows"]))


async def test_a_stop_ends_the_events_at_once(store: Store) -> None:
    stop, listening_socket = asyncio.Event(), socket.create_server(("127.0.0.1", 0))
    base = f"http://127.0.0.1:{listening_socket.getsockname()[1]}"
    app = create_app(store, sandbox(), stop=stop)
    serving = asyncio.create_task(serve_web(app, listening_socket, stop=stop))
    async with plain_client(base_url=base) as client, listening(client) as told:
        await told.next()
        began_s = time.monotonic()
        stop.set()
        await told.ends()
        await serving
    # what the server waits for answers that are under way is five seconds
    assert time.monotonic() - began_s < 4.0


async def test_a_page_has_to_come_again_now_and_then(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "LISTENING_S", 0.0)
    client = await serve()
    answer = await client.get("/sandbox/events")
    assert answer.text.endswith("event: again\ndata: {}\n\n")


async def test_it_ends_with_the_logout_and_tells_nothing_more(
    serve: Serve, capture: Capture
) -> None:
    client = await serve(with_logins())
    await log_in(client, "vera")
    form = (await client.get("/sandbox")).text.partition('name="csrf" value="')[2]
    async with listening(client) as told:
        await told.next()
        answer = await client.post("/logout", data={"csrf": form.partition('"')[0]})
        assert answer.status_code == 303
        capture(CONTENT % b"secret")
        assert await told.next() == {}  # the page is loaded again: the login page
        await told.ends()
    answer = await client.get("/sandbox/events", headers={"Accept": "text/event-stream"})
    assert answer.status_code == 401


async def test_it_ends_when_the_session_expires(
    serve: Serve, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await serve(with_logins())
    await log_in(client, "vera")
    async with listening(client) as told:
        await told.next()
        later_ms = clock_ms() + credentials.IDLE_MS
        monkeypatch.setattr(credentials, "clock_ms", lambda: later_ms)
        capture(CONTENT % b"secret")
        assert await told.next() == {}
        await told.ends()


async def test_it_does_not_keep_a_session_alive(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "SIGN_OF_LIFE_S", 0.01)
    client = await serve(with_logins())
    await log_in(client, "vera")
    async with listening(client) as told:
        later_ms = clock_ms() + credentials.IDLE_MS - 1000
        monkeypatch.setattr(credentials, "clock_ms", lambda: later_ms)
        signs = 0
        async for line in told.lines:
            signs += line == ":"
            if signs == 5:
                break
    monkeypatch.setattr(credentials, "clock_ms", lambda: later_ms + 2000)
    assert (await client.get("/sandbox")).status_code == 303


async def test_there_is_a_limit(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_LISTENERS", 1)
    client = await serve()
    async with listening(client) as told:
        await told.next()
        answer = await client.get("/sandbox/events")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]


async def test_nobody_listens_without_a_login(serve: Serve) -> None:
    client = await serve(with_logins())
    answer = await client.get("/sandbox/events", headers={"Accept": "text/event-stream"})
    assert answer.status_code == 401
