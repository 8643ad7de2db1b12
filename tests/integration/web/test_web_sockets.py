"""Websockets pass the same guards: no site reads live events of a sandbox that is open."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relaygw.settings.model import Settings
from relaygw.store.store import Store
from relaygw.web.gate.access import Access
from relaygw.web.gate.guards import Guards, refusal
from relaygw.web.gate.identity import Identity
from tests.integration.web.conftest import sandbox
from tests.integration.web.people import TOKENS, with_logins

OWN = ("origin", "http://localhost:8025")


def gate(store: Store, settings: Settings) -> ASGIApp:
    """Return the guards and the gate before an endpoint that accepts every websocket."""

    async def accept(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})

    identity = Identity(store, settings, {})
    access = Access(accept, identity=identity)
    web = settings.web
    return Guards(access, web=web, refused=refusal(settings), client=identity.forwarded.client)


async def opened(app: ASGIApp, *headers: tuple[str, str], host: str = "localhost:8025") -> int:
    """Ask for a websocket; return 101, or the status of the refusal."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "websocket",
        "scheme": "ws",
        "path": "/api/events",
        "raw_path": b"/api/events",
        "query_string": b"",
        "client": ("127.0.0.1", 40000),
        "headers": [(n.encode(), v.encode()) for n, v in (("host", host), *headers)],
        "extensions": {"websocket.http.response": {}},
    }
    await app(scope, receive, send)
    if sent[0]["type"] == "websocket.accept":
        return 101
    assert sent[0]["type"] == "websocket.http.response.start"
    return int(sent[0]["status"])


async def test_an_open_sandbox_is_open_to_programs_and_to_its_own_pages(store: Store) -> None:
    app = gate(store, sandbox())
    assert await opened(app) == 101
    assert await opened(app, OWN) == 101


@pytest.mark.parametrize(
    "headers",
    [
        [("origin", "http://evil.test")],
        [("origin", "null")],
        [("origin", "http://localhost:3000")],
        [("origin", "http://localhost:8025"), ("sec-fetch-site", "cross-site")],
    ],
)
async def test_other_sites_listen_to_nothing(store: Store, headers: list[tuple[str, str]]) -> None:
    assert await opened(gate(store, sandbox()), *headers) == 403
    token = ("authorization", f"Bearer {TOKENS['look']}")
    assert await opened(gate(store, with_logins()), token, *headers) == 403


async def test_the_host_counts_here_too(store: Store) -> None:
    app = gate(store, sandbox())
    assert await opened(app, ("origin", "http://evil.test"), host="evil.test") == 421


async def test_nobody_listens_where_people_log_in(store: Store) -> None:
    app = gate(store, with_logins())
    assert await opened(app) == 401
    assert await opened(app, ("authorization", "Bearer x")) == 401
    assert await opened(app, ("authorization", f"Bearer {TOKENS['look']}")) == 101
