from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from relaygw import passwords
from relaygw.mail.content import read_header
from relaygw.mail.envelope import AcceptedMessage, NewDelivery, NewRecipient, Source
from relaygw.mail.queue_id import QueueIdSource
from relaygw.mail.state import RecipientState
from relaygw.settings.model import Settings
from relaygw.store.store import Store, open_store
from relaygw.web.app import create_app
from relaygw.web.dashboard.monitoring import ReadyCheck
from relaygw.web.server import serve_web
from tests.plain_http import plain_client
from tests.queues import make_queue

CHUNK_BYTES = 2**20
FIRST_AT_MS = 1_764_064_800_123

Capture = Callable[..., str]
Serve = Callable[..., Awaitable[httpx2.AsyncClient]]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    url = f"sqlite:///{tmp_path}/queue.db"
    make_queue(url)
    opened = open_store(url)
    yield opened
    opened.close()


@pytest.fixture
def capture(store: Store) -> Capture:
    """Store a message as the front does in sandbox mode and return its queue id."""
    ids = QueueIdSource()
    at_ms = iter(range(FIRST_AT_MS, FIRST_AT_MS + 1_000_000))

    def accept(
        content: bytes,
        recipients: Sequence[str] = ("ann@x.test",),
        *,
        state: RecipientState = RecipientState.CAPTURED,
        user: str | None = None,
    ) -> str:
        now_ms = next(at_ms)
        facts = read_header(content)
        queue_id = ids.next_id(now_ms)
        store.intake.accept_batch(
            [
                AcceptedMessage(
                    queue_id=queue_id,
                    accepted_at_ms=now_ms,
                    sender="bounces@shop.test",
                    deliveries=(
                        NewDelivery(
                            route="default",
                            stream="transactional",
                            recipients=tuple(
                                NewRecipient(address=to, state=state) for to in recipients
                            ),
                        ),
                    ),
                    content=tuple(
                        content[start : start + CHUNK_BYTES]
                        for start in range(0, len(content), CHUNK_BYTES)
                    ),
                    size_bytes=len(content),
                    subject=facts.subject,
                    message_id=facts.message_id,
                    is_8bit=False,
                    has_long_line=False,
                    smtputf8=False,
                    mode="sandbox",
                    source=Source(client="127.0.0.1", user=user),
                    client_key="127.0.0.1",
                )
            ]
        )
        return queue_id

    return accept


@pytest.fixture
def quick_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a login that fails answered at once."""
    monkeypatch.setattr(passwords, "FAILURE_S", 0.05)


def sandbox(**web: Any) -> Settings:
    return Settings(mode="sandbox", web=web)  # type: ignore[arg-type]


@asynccontextmanager
async def running(
    store: Store,
    settings: Settings,
    is_ready: ReadyCheck | None = None,
    patience_s: Mapping[str, float] | None = None,
    **more: Any,
) -> AsyncIterator[httpx2.AsyncClient]:
    """Serve on a loopback socket and yield a client for it; stops in the end."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    stop = asyncio.Event()
    app = create_app(store, settings, is_ready=is_ready, stop=stop, **more)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve_web(app, listening, stop=stop, **(patience_s or {})))
        async with plain_client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            try:
                yield client
            finally:
                stop.set()


@pytest.fixture
async def serve(store: Store) -> AsyncIterator[Serve]:
    """Start the web role, in sandbox mode unless told otherwise, and return a client."""
    async with AsyncExitStack() as stack:

        async def start(
            settings: Settings | None = None,
            *,
            is_ready: ReadyCheck | None = None,
            **patience_s: float,
        ) -> httpx2.AsyncClient:
            served = running(store, settings or sandbox(), is_ready, patience_s)
            return await stack.enter_async_context(served)

        yield start
