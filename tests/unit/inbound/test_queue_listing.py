"""The socket of mailq beside a real store: pages, slow clients, a store in trouble."""

from __future__ import annotations

import asyncio
import io
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from relaygw.errors import StoreUnavailable
from relaygw.inbound import local_socket, queue_listing
from relaygw.inbound.drop_directory import DropDirectory
from relaygw.inbound.queue_listing import PAGE_MESSAGES, QueueListing
from relaygw.store.queue_entry import Waiting
from tests.altered_store import AlteredStore
from tests.builders import accepted
from tests.logs import text_log
from tests.queues import make_queue


class WatchedStore(AlteredStore):
    """A real store that counts searches and can be made to fail or wait."""

    searches = 0
    failure: Exception | None = None

    def waiting(self, *, limit: int, after: str = "") -> list[Waiting]:
        self.searches += 1
        self.threads.add(threading.current_thread().name)
        if self.failure is not None and self.searches > 1:
            raise self.failure
        return super().waiting(limit=limit, after=after)

    @property
    def threads(self) -> set[str]:
        return self.__dict__.setdefault("seen_threads", set())


@dataclass
class Rig:
    store: WatchedStore
    directory: DropDirectory
    written: io.StringIO
    listing: QueueListing

    async def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, str(self.directory.path / "queue"))
        return client

    async def read(self, client: socket.socket) -> bytes:
        """Return all until the end of the stream."""
        received = b""
        async with asyncio.timeout(90):
            while piece := await asyncio.get_running_loop().sock_recv(client, 65536):
                received += piece
        client.close()
        return received

    async def ask(self) -> bytes:
        return await self.read(await self.connect())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(90):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    url = f"sqlite:///{tmp_path}/queue.db"
    make_queue(url)
    store = WatchedStore(url)
    directory = DropDirectory(tmp_path / "maildrop", None)
    written = io.StringIO()
    words = {"slow": "slow is held"}
    listing = QueueListing(
        directory, store.queue, text_log(written), lambda: lambda way: words.get(way.route, "")
    )
    yield Rig(store, directory, written, listing)
    directory.close()
    store.close()


async def test_a_page_that_is_just_full(rig: Rig) -> None:
    async with rig.listing:
        assert await rig.ask() == b"Mail queue is empty\n"
        rig.store.intake.accept_batch([accepted() for _ in range(PAGE_MESSAGES)])
        assert (await rig.ask()).endswith(b"in %d Requests.\n" % PAGE_MESSAGES)
    assert rig.store.threads == {"queue_0"}
    assert not (rig.directory.path / "queue").exists()
    assert rig.written.getvalue() == ""


async def test_what_is_in_the_way_is_the_reason(rig: Rig) -> None:
    rig.store.intake.accept_batch([accepted("a@x.test"), accepted("b@x.test", route="slow")])
    async with rig.listing:
        report = await rig.ask()
    assert report.count(b"(") == report.count(b"(slow is held)") == 1


async def test_a_client_that_does_not_read_is_cut(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_listing, "STALL_S", 2.0)
    # more than two sockets' buffers hold
    rig.store.intake.accept_batch([accepted("x" * 60 + "@cust.test") for _ in range(3500)])
    async with rig.listing:
        slow = await rig.connect()
        assert (await rig.ask()).endswith(b"in 3500 Requests.\n")  # nobody waits for it
        await until(lambda: not rig.listing.clients.total())
        searches = rig.store.searches
        received = await rig.read(slow)
        assert rig.store.searches == searches
    assert received.startswith(b"----Queue ID-----")
    assert b"\n-- " not in received


async def test_a_client_that_leaves_frees_its_place(rig: Rig) -> None:
    rig.store.intake.accept_batch([accepted("x" * 60 + "@cust.test") for _ in range(3500)])
    async with rig.listing:
        for _ in range(3 * local_socket.MAX_CLIENTS_OF_A_USER):
            client = await rig.connect()
            await until(lambda: rig.listing.clients.total() == 1)
            client.close()
            await until(lambda: not rig.listing.clients.total())
        assert (await rig.ask()).endswith(b"in 3500 Requests.\n")


@pytest.mark.parametrize(
    ("failure", "said"),
    [(StoreUnavailable("no database"), ""), (RuntimeError("odd"), "mailq: RuntimeError: odd")],
)
async def test_a_store_in_trouble_leaves_the_end_out(
    rig: Rig, failure: Exception, said: str
) -> None:
    rig.store.intake.accept_batch([accepted() for _ in range(PAGE_MESSAGES + 1)])
    rig.store.failure = failure
    async with rig.listing:
        for _ in range(3):
            rig.store.searches = 0
            received = await rig.ask()
            assert received.startswith(b"----Queue ID-----")
            assert b"\n-- " not in received
        rig.store.failure = None
        assert (await rig.ask()).endswith(b"in %d Requests.\n" % (PAGE_MESSAGES + 1))
    assert rig.written.getvalue().count("warning") == (1 if said else 0)
    assert said in rig.written.getvalue()


async def test_what_is_in_the_way_is_said(rig: Rig) -> None:
    (rig.directory.path / "queue").mkdir()
    async with rig.listing:
        pass
    assert "maildrop/queue: no socket (" in rig.written.getvalue()
    assert (rig.directory.path / "queue").is_dir()
