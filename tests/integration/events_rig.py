"""The listener for events on a real socket, and what reads them, over a real store.

async with listening_at(store) as at:
    queue_id, sent = at.sent("sendgrid", "b@cust.test")
    await at.post(signer.sign([example.make(sent)], clock_ms()), "sendgrid")
    await at.until_read()
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import select

from relaygw.feedback.reading import Reader
from relaygw.feedback.receiving import PostBox
from relaygw.mail.clock import clock_ms
from relaygw.settings.model import Settings
from relaygw.store.feedback import MatchedEvent
from relaygw.store.side_tables import event_post, provider_event, verdict
from relaygw.store.store import Store, open_store
from relaygw.upstream.mark import KEY, Marks
from relaygw.web.feedback import USUAL, Bounds, EventsApp
from relaygw.web.server import ConnectionLimit, serve_web
from tests.builders import accepted, instance, part_on, taken, update_of
from tests.feedback.documented import Sent
from tests.feedback.signers import SIGNERS, Signed, signer_of
from tests.plain_http import plain_client


def settings_for(signers: dict[str, Any], **more: Any) -> Settings:
    """Return settings with a provider of each service, named like it."""
    providers = {
        name: {
            "preset": name,
            "host": "127.0.0.1",
            "events": {
                **({"secret": f"plain:{one.secret}"} if one.secret else {}),
                **({"topic": one.topic} if one.topic else {}),
            },
        }
        for name, one in signers.items()
    }
    return Settings.model_validate(
        {
            "mode": "production",
            "providers": providers,
            "routes": [{"name": "default", "providers": ["sendgrid"]}],
            "events": {"bind": "127.0.0.1:8026"},
            **more,
        }
    )


class Listening:
    """A listener and a reader of one process."""

    def __init__(
        self, store: Store, settings: Settings, signers: dict[str, Any], base: str
    ) -> None:
        self.store = store
        self.settings = settings
        self.signers = signers
        self.client = plain_client(base_url=base, timeout=30)
        self.new: list[MatchedEvent] = []
        self.looked = asyncio.Event()
        self.refused: Counter[tuple[str, str]] = Counter()
        self._marks = Marks(store.feedback.shared_key(KEY))

    def note(self, new: Sequence[MatchedEvent]) -> None:
        self.new.extend(new)
        self.looked.set()

    def sent(
        self, provider: str, *people: str, reply: str = "250 ok", **more: Any
    ) -> tuple[str, Sent]:
        """Have a provider take a mail; return its queue id, and it as the provider knows it."""
        addresses = people or ("bob@cust.test",)
        message = accepted(
            at_ms=clock_ms(),
            deliveries=(part_on("default", *addresses),),
            message_id=f"<{more.get('message_id', 'order-1@shop.test')}>",
        )
        self.store.intake.accept_batch([message])
        self.deliver(message.queue_id, provider, len(addresses), reply)
        marks = {"mark": self._marks.mark_of(message.queue_id), "at_ms": clock_ms() - 60_000}
        sent = Sent(address=addresses[0], others=tuple(addresses[1:]), **{**marks, **more})
        return message.queue_id, sent

    def deliver(self, queue_id: str, provider: str, count: int, reply: str) -> None:
        now_ms = clock_ms()
        self.store.leases.claim("default", limit=10, incarnation="one", now_ms=now_ms)
        people = tuple(taken(number, provider=provider, reply=reply) for number in range(count))
        update = update_of(queue_id, provider=provider, recipients=people)
        recorded = self.store.leases.record_batch([update], incarnation="one", now_ms=now_ms)
        assert recorded.lost == ()

    async def post(self, signed: Signed, provider: str) -> int:
        """Post as the provider; return the status."""
        headers = {name: value.encode("latin-1") for name, value in signed.headers.items()}
        path = f"/events/{provider}"
        response = await self.client.post(path, content=signed.body, headers=headers)
        return int(response.status_code)

    async def until_read(self, left: int = 0, *, patience_s: float = 60) -> None:
        """Wait until no more posts are left."""
        await self.until(lambda: len(self.rows(event_post)) <= left, patience_s=patience_s)

    async def until(self, condition: Callable[[], object], *, patience_s: float = 60) -> None:
        """Wait until the database holds what it should, or everybody was told."""
        async with asyncio.timeout(patience_s):
            while not condition():
                await asyncio.wait([asyncio.create_task(self.looked.wait())], timeout=0.05)
                self.looked.clear()

    def rows(self, table: Any) -> list[Any]:
        with self.store.database.read() as tx:
            return list(tx.execute(select(table)))

    def events(self) -> list[Any]:
        return sorted(self.rows(provider_event), key=lambda row: row.event_no)

    def verdicts(self) -> dict[str, str]:
        """Return the last words by queue id and number of the recipient."""
        return {f"{row.queue_id}/{row.rcpt_no}": row.kind for row in self.rows(verdict)}


@asynccontextmanager
async def listening_at(
    store: Store,
    signers: dict[str, Any] | None = None,
    *,
    reads: bool = True,
    limit: ConnectionLimit | None = None,
    bounds: Bounds = USUAL,
    head_s: float | None = None,
    reading: Mapping[str, Any] | None = None,
    **more: Any,
) -> AsyncIterator[Listening]:
    """Serve the listener for the length of a with block; `reads`: a reader, too, as `reading`."""
    signers = signers or {name: signer_of(name) for name in SIGNERS}
    settings = settings_for(signers, **more)
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    stop = asyncio.Event()
    at = Listening(store, settings, signers, f"http://127.0.0.1:{sock.getsockname()[1]}")
    reader = Reader(store, settings, told=at.note, **(reading or {}))
    box = PostBox(
        store,
        settings,
        taken=reader.wake,
        counted=lambda *key: at.refused.update([key]),
        fetch_url=signers["ses"].fetch,
    )
    app, limit = EventsApp(box, bounds=bounds), limit or ConnectionLimit()
    serving = serve_web(app, sock, stop=stop, limit=limit, head_s=head_s)
    work = [asyncio.create_task(serving)]
    if reads:
        work.append(asyncio.create_task(reader.run(stop)))
    try:
        yield at
    finally:
        await at.client.aclose()
        stop.set()
        await asyncio.gather(*work)
        await box.close()


def open_registered(url: str, name: str = "one") -> Store:
    store = open_store(url)
    store.instances.register(instance(name))
    return store
