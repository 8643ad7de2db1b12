"""Nobody holds a connection for longer than a limit: L4-L7, handshakes, headers, deaf clients."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from relaygw.inbound import connection, content, listeners
from tests.e2e.doors import make_pair
from tests.integration.inbound.front_rig import Client, Rig, running_front, until

TIMEOUT = "421 4.4.2 Error: timeout exceeded"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often; each test makes one limit short."""
    monkeypatch.setattr(listeners, "CHECK_EACH_S", 0.02)


async def dribble(client: Client, text: bytes, *, every_s: float) -> str:
    """Send byte by byte until the server answers; return what it said."""
    answer = asyncio.ensure_future(client.reply())
    for byte in text:
        client.writer.write(bytes((byte,)))
        done, _ = await asyncio.wait([answer], timeout=every_s)
        if done:
            break
    return await answer


async def data(rig: Rig) -> Client:
    """Return a client that was asked for content."""
    client = await rig.greeted()
    await client.command(b"MAIL FROM:<a@b.test>")
    await client.command(b"RCPT TO:<c@d.test>")
    assert (await client.command(b"DATA")).startswith("354 ")
    return client


async def test_a_command_byte_by_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L4."""
    monkeypatch.setattr(connection, "COMMAND_S", 0.3)
    async with running_front(tmp_path) as rig:
        client = await rig.greeted()
        assert await dribble(client, b"NOOP" + b"x" * 100, every_s=0.02) == TIMEOUT
        assert await client.reply() == ""
        assert "timeout in command from unknown[127.0.0.1]" in rig.log.getvalue()


async def test_content_byte_by_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L5: by the rate that content must have on average."""
    monkeypatch.setattr(content, "GRACE_S", 0.2)
    async with running_front(tmp_path) as rig:
        client = await data(rig)
        assert await dribble(client, b"x" * 1000, every_s=0.02) == TIMEOUT
        assert await client.reply() == ""
        assert "timeout in DATA from unknown[127.0.0.1]" in rig.log.getvalue()


async def test_content_that_is_fast_enough_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "GRACE_S", 0.2)
    async with running_front(tmp_path) as rig:
        client = await data(rig)
        for _ in range(10):
            client.writer.write(b"x" * 98 + b"\r\n")
            await asyncio.sleep(0.05)
        assert (await client.command(b".")).startswith("250 ")


@pytest.mark.parametrize("limit", ["SILENCE_S", "WHOLE_S"])
async def test_content_that_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(content, limit, 0.2)
    async with running_front(tmp_path) as rig:
        client = await data(rig)
        client.writer.write(b"Subject: x\r\n")
        assert await client.reply() == TIMEOUT


async def test_a_client_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L6."""
    monkeypatch.setattr(connection, "IDLE_S", 0.2)
    async with running_front(tmp_path) as rig:
        client = await rig.connect()
        assert (await client.reply()).startswith("220 ")
        assert await client.reply() == TIMEOUT
        assert await client.reply() == ""


async def test_a_client_that_only_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L7; a message buys time."""
    monkeypatch.setattr(connection, "SESSION_S", 0.5)
    async with running_front(tmp_path) as rig:
        began_s = time.monotonic()
        client = await rig.greeted()
        await asyncio.sleep(0.3)
        await client.command(b"MAIL FROM:<a@b.test>")
        await client.command(b"RCPT TO:<c@d.test>")
        await client.command(b"DATA")
        assert (await client.command(b"x\r\n.")).startswith("250 ")
        for _ in range(100):
            reply = await client.command(b"NOOP")
            if not reply.startswith("250 "):
                break
            await asyncio.sleep(0.05)
        assert reply == TIMEOUT
        assert time.monotonic() - began_s > 0.75


async def test_no_handshake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HANDSHAKE_S", 0.2)
    pair = make_pair(tmp_path)
    async with running_front(tmp_path, tls=pair.tls("implicit")) as rig:
        client = await rig.connect()
        assert await client.reply() == ""
    async with running_front(tmp_path, tls=pair.tls("starttls")) as rig:
        client = await rig.greeted()
        assert (await client.command(b"STARTTLS")).startswith("220 ")
        assert await client.reply() == ""


async def test_no_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PROXY_HEADER_S", 0.2)
    async with running_front(tmp_path, proxy_protocol=["127.0.0.0/8"]) as rig:
        client = await rig.connect()
        assert await client.reply() == ""


async def test_a_client_that_does_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies that nobody takes are not waited for for ever, nor kept."""
    monkeypatch.setattr(connection, "IDLE_S", 0.3)
    monkeypatch.setattr("relaygw.inbound.session.MAX_JUNK_COMMANDS", 10**9)
    async with running_front(tmp_path) as rig:
        client = await rig.greeted()
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        client.writer.write(b"VRFY x\r\n" * 500_000)
        await until(lambda: "timeout in command" in rig.log.getvalue())
