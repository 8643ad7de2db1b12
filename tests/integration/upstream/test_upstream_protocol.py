"""The connection's own bounds, and dialing: what never shows in a transaction that goes well."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from relaygw.settings.provider import Provider
from relaygw.upstream.connection import connect_first, connect_socket, may_authenticate
from relaygw.upstream.protocol import ConnectionLost, ReplyInvalid, WireProtocol


async def connected() -> tuple[WireProtocol, asyncio.Transport, socket.socket]:
    ours, theirs = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    protocol = WireProtocol(transport)
    transport.set_protocol(protocol)
    return protocol, transport, theirs


async def test_a_flood_is_not_read_without_end() -> None:
    protocol, transport, theirs = await connected()
    with theirs:
        protocol.data_received(b"250 ok\r\n" * 40_000)
        assert not transport.is_reading()
        while protocol.has_unread:
            await protocol.read_reply(timeout_s=30)
        assert transport.is_reading()
        protocol.abort()
        await protocol.closed


async def test_a_reply_that_came_before_the_end_can_still_be_read() -> None:
    protocol, _, theirs = await connected()
    with theirs:
        theirs.sendall(b"421-a\r\n421 b\r\n250 half")
        theirs.close()
        await protocol.closed
        assert (await protocol.read_reply(timeout_s=30)).code == 421
        with pytest.raises(ConnectionLost):
            await protocol.read_reply(timeout_s=30)


async def test_an_endless_reply_is_given_up() -> None:
    protocol, _, theirs = await connected()
    with theirs:
        protocol.data_received(b"2" * 1_000_000)
        with pytest.raises(ReplyInvalid):
            await protocol.read_reply(timeout_s=30)
        protocol.abort()
        await protocol.closed


@pytest.fixture
def silent_address() -> Iterator[tuple[str, int]]:
    """An address whose backlog is full, so that no connection is ever made."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        yield address
        for filler in fillers:
            filler.close()


async def test_a_silent_address_ends_at_the_limit(silent_address: tuple[str, int]) -> None:
    host, port = silent_address
    with pytest.raises(TimeoutError, match="no reply within"):
        await connect_socket(host, port, timeout_s=0.3)


async def test_the_next_address_is_tried_meanwhile(silent_address: tuple[str, int]) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        good = listening.getsockname()
        sock, address = await connect_first(
            "x.test", [(socket.AF_INET, silent_address), (socket.AF_INET, good)]
        )
        with sock:
            assert (sock.getpeername(), address) == (good, "127.0.0.1")


async def test_the_next_address_is_tried_at_once_after_a_refusal() -> None:
    with socket.socket() as unused, socket.socket() as listening:
        unused.bind(("127.0.0.1", 0))
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        refusing, good = unused.getsockname(), listening.getsockname()
        sock, _ = await connect_first(
            "x.test", [(socket.AF_INET, refusing), (socket.AF_INET, good)]
        )
        with sock:
            assert sock.getpeername() == good
        with pytest.raises(OSError, match=f"connect to x.test\\[127.0.0.1\\]:{refusing[1]}: "):
            await connect_first("x.test", [(socket.AF_INET, refusing)] * 2)


def test_the_password_needs_tls_or_this_machine() -> None:
    provider = Provider(host="x.test", tls="opportunistic")
    assert not may_authenticate(provider, is_private=False)
    assert may_authenticate(provider, is_private=True)
    allowed = Provider(host="x.test", tls="none", auth_without_tls=True)
    assert may_authenticate(allowed, is_private=False)
