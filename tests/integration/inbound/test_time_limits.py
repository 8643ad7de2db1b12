"""Nobody holds a connection for longer than a limit: L4-L7, handshakes, headers, deaf clients."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from relaygw.inbound.time_limits import TimeLimits
from tests.e2e.doors import make_pair
from tests.integration.inbound.front_rig import Client, Rig, running_front, until

TIMEOUT = "421 4.4.2 Error: timeout exceeded"


def short(**limits_s: float) -> TimeLimits:
    """Return limits of which one is short, and that are looked at often."""
    return TimeLimits(check_each_s=0.02, **limits_s)


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


async def test_a_command_byte_by_byte(tmp_path: Path) -> None:
    """L4."""
    async with running_front(tmp_path, limits=short(command_s=0.3)) as rig:
        client = await rig.greeted()
        assert await dribble(client, b"NOOP" + b"x" * 100, every_s=0.02) == TIMEOUT
        assert await client.reply() == ""
        assert "timeout in command from unknown[127.0.0.1]" in rig.log.getvalue()


async def test_content_byte_by_byte(tmp_path: Path) -> None:
    """L5: by the rate that content must have on average."""
    async with running_front(tmp_path, limits=short(content_grace_s=0.2)) as rig:
        client = await data(rig)
        assert await dribble(client, b"x" * 1000, every_s=0.02) == TIMEOUT
        assert await client.reply() == ""
        assert "timeout in DATA from unknown[127.0.0.1]" in rig.log.getvalue()


async def test_content_that_is_fast_enough_is_taken(tmp_path: Path) -> None:
    async with running_front(tmp_path, limits=short(content_grace_s=0.2)) as rig:
        client = await data(rig)
        for _ in range(10):
            client.writer.write(b"x" * 98 + b"\r\n")
            await asyncio.sleep(0.05)
        assert (await client.command(b".")).startswith("250 ")


@pytest.mark.parametrize("limit", ["content_silence_s", "content_s"])
async def test_content_that_stops(tmp_path: Path, limit: str) -> None:
    async with running_front(tmp_path, limits=short(**{limit: 0.2})) as rig:
        client = await data(rig)
        client.writer.write(b"Subject: x\r\n")
        async with asyncio.timeout(60):  # the rate that it must have would end it later
            assert await client.reply() == TIMEOUT


async def test_a_client_that_says_nothing(tmp_path: Path) -> None:
    """L6."""
    async with running_front(tmp_path, limits=short(idle_s=0.2)) as rig:
        client = await rig.connect()
        assert (await client.reply()).startswith("220 ")
        assert await client.reply() == TIMEOUT
        assert await client.reply() == ""


async def test_a_client_that_only_stays(tmp_path: Path) -> None:
    """L7; a message buys time."""
    async with running_front(tmp_path, limits=short(session_s=0.5)) as rig:
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


async def test_no_handshake(tmp_path: Path) -> None:
    pair, limits = make_pair(tmp_path), short(handshake_s=0.2)
    async with running_front(tmp_path, tls=pair.tls("implicit"), limits=limits) as rig:
        client = await rig.connect()
        assert await client.reply() == ""
    async with running_front(tmp_path, tls=pair.tls("starttls"), limits=limits) as rig:
        client = await rig.greeted()
        assert (await client.command(b"STARTTLS")).startswith("220 ")
        assert await client.reply() == ""


async def test_no_header(tmp_path: Path) -> None:
    limits = short(proxy_header_s=0.2)
    async with running_front(tmp_path, proxy_protocol=["127.0.0.0/8"], limits=limits) as rig:
        client = await rig.connect()
        assert await client.reply() == ""


async def test_a_client_that_does_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies that nobody takes are not waited for for ever, nor kept."""
    monkeypatch.setattr("relaygw.inbound.session.MAX_JUNK_COMMANDS", 10**9)
    async with running_front(tmp_path, limits=short(idle_s=0.3)) as rig:
        client = await rig.greeted()
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        client.writer.write(b"VRFY x\r\n" * 500_000)
        await until(lambda: "timeout in command" in rig.log.getvalue())
