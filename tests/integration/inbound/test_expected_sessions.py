"""For which sessions a busy front waits before it writes a batch."""

from __future__ import annotations

import asyncio
from pathlib import Path

from relaygw.inbound.committer import PATIENT_BATCHES
from tests.integration.inbound.front_rig import Rig, running_front, until
from tests.integration.inbound.test_client_limits import send


def expected(rig: Rig) -> int:
    return len(rig.service.committer.expected_of)


async def test_who_has_come_or_is_in_a_transaction_is_expected(tmp_path: Path) -> None:
    async with running_front(tmp_path) as rig:
        client = await rig.greeted()
        assert expected(rig) == 1
        for command, then in (
            (b"MAIL FROM:<a@b.test>", 1),
            (b"RSET", 0),
            (b"NOOP", 0),
            (b"MAIL FROM:<a@b.test>", 1),
            (b"EHLO c.test", 0),
            (b"MAIL FROM:<a@b.test>", 1),
            (b"RCPT TO:<c@d.test>", 1),
            (b"DATA", 1),
            (b"x\r\n.", 0),
            (b"MAIL FROM:<a@b.test>", 1),
        ):
            assert (await client.command(command))[0] in "23"
            assert expected(rig) == then, command
        other = await rig.greeted()
        assert expected(rig) == 2
        client.writer.close()
        async with asyncio.timeout(60):
            await until(lambda: expected(rig) == 1)
        assert (await other.command(b"QUIT")).startswith("221")
        async with asyncio.timeout(60):
            await until(lambda: expected(rig) == 0)


async def test_who_is_silent_is_not_expected_for_long(tmp_path: Path) -> None:
    async with running_front(tmp_path) as rig:
        client, other = await rig.greeted(), await rig.greeted()
        for _ in range(2 * PATIENT_BATCHES):
            assert (await send(other)).startswith("250 ")
        assert expected(rig) == 0
        assert (await client.command(b"MAIL FROM:<a@b.test>")).startswith("250")
        assert expected(rig) == 1


async def test_who_sends_large_content_is_not_expected_soon(tmp_path: Path) -> None:
    async with running_front(tmp_path) as rig:
        client = await rig.greeted()
        for command in (b"MAIL FROM:<a@b.test>", b"RCPT TO:<c@d.test>", b"DATA"):
            assert (await client.command(command))[0] in "23"
        assert expected(rig) == 1
        client.writer.write(b"x" * 100_000)
        await client.writer.drain()
        client.writer.write(b"x" * 100_000)
        async with asyncio.timeout(60):
            await until(lambda: expected(rig) == 0)
        assert (await client.command(b"\r\n.")).startswith("250")
