"""/api/events with a real client: what happens in the sandbox, in Mailpit's words."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from relaygw import __version__
from relaygw.mail.search import MailSearch
from relaygw.store.sandbox import CapturedEntry
from relaygw.store.store import Store
from relaygw.web.sandbox.api.live import Wait
from tests.integration.web.conftest import running, sandbox
from tests.integration.web.people import PASSWORDS, TOKENS, with_logins

Capture = Callable[..., str]
Serve = Callable[..., Awaitable[httpx2.AsyncClient]]

MAIL = b"From: shop@shop.test\r\nTo: ann@x.test\r\nSubject: Order %d\r\n\r\nhello\r\n"


def address(client: httpx2.AsyncClient) -> str:
    return str(client.base_url).rstrip("/").replace("http://", "ws://") + "/api/events"


async def told(socket: ClientConnection, number: int) -> list[dict[str, Any]]:
    return [json.loads(await asyncio.wait_for(socket.recv(), 30)) for _ in range(number)]


def stats(total: int, unread: int) -> dict[str, Any]:
    data = {"Total": total, "Unread": unread, "Version": f"relaygw {__version__}"}
    return {"Type": "stats", "Data": data}


async def test_what_comes_is_read_and_goes(serve: Serve, capture: Capture) -> None:
    capture(MAIL % 0)
    client = await serve()
    async with connect(address(client)) as socket:
        queue_id = capture(MAIL % 1)
        new, counts = await told(socket, 2)
        (listed, _) = (await client.get("/api/v1/messages")).json()["messages"]
        assert new == {"Type": "new", "Data": listed}
        assert (listed["ID"], listed["Subject"]) == (queue_id, "Order 1")
        assert counts == stats(2, 2)
        await client.get(f"/api/v1/message/{queue_id}")
        update = {"Type": "update", "Data": {"ID": queue_id, "Read": True, "Tags": []}}
        assert await told(socket, 2) == [update, stats(2, 1)]
        await client.request("DELETE", "/api/v1/messages", json={"IDs": [queue_id]})
        gone = {"Type": "delete", "Data": {"ID": queue_id}}
        assert await told(socket, 2) == [gone, stats(1, 1)]


async def test_no_site_listens_and_nobody_without_a_login(serve: Serve) -> None:
    client = await serve()
    with pytest.raises(InvalidStatus) as refused:
        await connect(address(client), origin="http://evil.test")  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403
    client = await serve(with_logins())
    with pytest.raises(InvalidStatus) as refused:
        await connect(address(client))
    assert refused.value.response.status_code == 401
    token = {"Authorization": f"Bearer {TOKENS['look']}"}
    async with connect(address(client), additional_headers=token):
        pass


async def test_it_and_a_wait_end_with_the_session(
    serve: Serve, capture: Capture, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = threading.Event()
    look = Wait._newest

    def noted(wait: Wait, search: MailSearch, to: str) -> CapturedEntry | None:
        looks.set()
        return look(wait, search, to)

    monkeypatch.setattr(Wait, "_newest", noted)
    client = await serve(with_logins())
    await client.post("/login", data={"name": "vera", "password": PASSWORDS["vera"]})
    [cookie] = client.cookies.jar
    session = {"Cookie": f"{cookie.name}={cookie.value}"}
    async with connect(address(client), additional_headers=session) as socket:
        waiting = asyncio.create_task(client.get("/api/gateway/v1/wait?subject=x&timeout=60s"))
        capture(MAIL % 1)
        await told(socket, 2)
        assert await asyncio.to_thread(looks.wait, 30), "the wait was let in"
        assert cookie.value is not None
        store.sessions.drop(hashlib.sha256(cookie.value.partition(".")[0].encode()).hexdigest())
        capture(MAIL % 2)
        with pytest.raises(ConnectionClosed):
            while True:  # a look that had begun before may still tell of it
                await asyncio.wait_for(socket.recv(), 30)
        assert socket.close_code == 1008
        answer = await waiting
        assert (answer.status_code, "has ended" in answer.text) == (401, True)


async def test_a_stop_ends_it(store: Store) -> None:
    async with running(store, sandbox(), None) as client:
        socket = await connect(address(client))
    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(socket.recv(), 30)
    assert socket.close_code in (1001, 1012)


async def test_what_a_client_says_is_not_heard_and_twenty_are_enough(
    serve: Serve, capture: Capture
) -> None:
    client = await serve()
    sockets = [await connect(address(client)) for _ in range(20)]
    await sockets[0].send("hello")
    await sockets[0].send(b"\x00")
    queue_id = capture(MAIL % 1)
    for socket in sockets:
        assert (await told(socket, 2))[0]["Data"]["ID"] == queue_id
    late = await connect(address(client))
    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(late.recv(), 30)
    assert late.close_code == 1013
    for socket in sockets:
        await socket.close()
    async with connect(address(client)) as socket:
        capture(MAIL % 2)
        assert (await told(socket, 1))[0]["Type"] == "new"
