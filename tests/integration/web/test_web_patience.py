"""Clients that are slow, or say what no client would, on raw connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import cast

import httpx2
import pytest

from relaygw.web.gate import access
from tests.integration.web.conftest import sandbox
from tests.integration.web.people import with_logins

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]
BIG = b"Subject: x\r\n\r\n" + bytes(24 * 2**20)  # more than a connection holds
HEAD = b"POST /api/x HTTP/1.1\r\nHost: localhost\r\n"


@asynccontextmanager
async def raw(
    client: httpx2.AsyncClient,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def answer_to(client: httpx2.AsyncClient, sent: bytes) -> bytes:
    """Send bytes and return everything until the server closes."""
    async with raw(client) as (reader, writer):
        writer.write(sent)
        return await reader.read()


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the server closes; it may do so while something is on its way."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


async def test_a_body_that_does_not_come(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "BODY_S", 0.2)
    client = await serve(sandbox())
    answer = await answer_to(client, HEAD + b"Content-Length: 10\r\n\r\n123")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer.lower()
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    assert (await answer_to(client, chunked)).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "])
async def test_a_head_that_does_not_come(serve: Serve, sent: bytes) -> None:
    client = await serve(sandbox(), head_s=0.2)
    assert await answer_to(client, sent) == b""


async def test_a_head_that_comes_letter_by_letter(serve: Serve) -> None:
    client = await serve(sandbox(), head_s=0.3)
    async with raw(client) as (reader, writer):
        ended = asyncio.create_task(rest_of(reader))
        sent = 0
        while not ended.done():
            writer.write(b"X")
            sent += 1
            await asyncio.wait({ended}, timeout=0.02)
        assert ended.result() == b""
        assert sent > 3


async def test_the_second_head_is_waited_for_as_the_first(serve: Serve) -> None:
    client = await serve(sandbox(), head_s=0.3)
    get = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = await answer_to(client, get + b"GET /heal")
    assert answer.count(b"HTTP/1.1 200 ") == 1
    assert (await answer_to(client, get + get + b"G")).count(b"HTTP/1.1 200 ") == 2


async def test_a_slow_answer_is_not_cut_off(serve: Serve) -> None:
    client = await serve(with_logins(), head_s=0.2)  # a wrong password takes 1.5 s
    assert (await client.post("/login", data={"name": "a", "password": "b"})).status_code == 403


async def test_an_answer_that_nobody_reads(serve: Serve, capture: Callable[..., str]) -> None:
    client = await serve(sandbox(), read_s=0.3)
    path = f"/sandbox/{capture(BIG)}/part/0"
    async with raw(client) as (_, writer):
        cast("asyncio.Transport", writer.transport).pause_reading()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        with pytest.raises(ConnectionError):  # of a client that says something to who has gone
            async with asyncio.timeout(60):
                while True:
                    writer.write(b"\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.01)


async def test_an_answer_that_is_read_slowly_is_read_to_its_end(
    serve: Serve, capture: Callable[..., str]
) -> None:
    client = await serve(sandbox(), read_s=0.5)
    size_bytes = 0
    async with client.stream("GET", f"/sandbox/{capture(BIG)}/part/0") as answer:
        async for piece in answer.aiter_raw(2**20):
            size_bytes += len(piece)
            await asyncio.sleep(0.05)
    assert size_bytes == 24 * 2**20


async def test_who_hangs_up_in_the_middle_leaves_no_trace(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    client = await serve(sandbox())
    async with raw(client) as (_, writer):
        writer.write(HEAD + b"Content-Length: 10\r\n\r\n123")
        await writer.drain()
    assert (await client.get("/healthz")).status_code == 200
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"Content-Length: -1\r\n\r\n", 400),
        (b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"Content-Length: 1x\r\n\r\n", 400),
        (b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (b"Host: localhost\r\nContent-Length: 0\r\n\r\n", 400),
        (b"Content-Length: 99999999999999999999\r\n\r\n", 413),
    ],
)
async def test_odd_heads(serve: Serve, lines: bytes, status: int) -> None:
    client = await serve(sandbox())
    answer = await answer_to(client, HEAD + lines)
    assert answer.startswith(b"HTTP/1.1 ")
    assert int(answer[9:12]) in (400, status)


async def test_a_length_beside_chunks_smuggles_nothing(serve: Serve) -> None:
    """RFC 9112 section 6.3: chunks win; what is left over is not a request of its own."""
    client = await serve(sandbox())
    inner = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    sent = HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner
    answer = await answer_to(client, sent)
    assert answer.count(b"HTTP/1.1 ") == 1
