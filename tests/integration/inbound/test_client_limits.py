"""What one client may do in a time, whoever else is there."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.doors import OTHER_PASSWORD, PASSWORD, plain, user
from tests.integration.inbound.front_rig import Client, running_front

OVER = "450 4.7.1 Error: too much mail from 127.0.0.1"


async def send(client: Client, content: bytes = b"x\r\n") -> str:
    """Send a message; return the last reply, or the first that refuses."""
    for command in (b"MAIL FROM:<a@b.test>", b"RCPT TO:<c@d.test>", b"DATA", content + b"."):
        reply = await client.command(command)
        if reply[0] not in "23":
            return reply
    return reply


async def test_messages_in_a_time_are_counted_over_connections(tmp_path: Path) -> None:
    async with running_front(tmp_path, rate_per_client="3/h") as rig:
        for _ in range(3):
            assert (await send(await rig.greeted())).startswith("250 ")
        client = await rig.greeted()
        for _ in range(2):
            assert await send(client) == OVER
        assert (await client.command(b"NOOP")).startswith("250 ")
        assert f"NOQUEUE: reject: MAIL from unknown[127.0.0.1]: {OVER}" in rig.log.getvalue()


async def test_users_of_one_address_are_counted_apart(tmp_path: Path) -> None:
    users = [user(), user("shop2", OTHER_PASSWORD)]
    async with running_front(tmp_path, users=users, rate_per_client="1/h") as rig:
        for name, password in (("shop1", PASSWORD), ("shop2", OTHER_PASSWORD)):
            client = await rig.greeted()
            assert (await client.command(plain(name, password))).startswith("235 ")
            assert (await send(client)).startswith("250 ")
            assert await send(client) == OVER
        assert (await send(await rig.greeted())).startswith("250 ")


async def test_all_connections_together(tmp_path: Path) -> None:
    async with running_front(tmp_path, max_connections=2) as rig:
        first, _ = [await rig.greeted() for _ in range(2)]
        surplus = await rig.connect()
        assert (await surplus.reply()).startswith("421 4.7.0 Error: too many connections")
        assert await surplus.reply() == ""
        await first.command(b"QUIT")
        assert await first.reply() == ""
        await rig.greeted()
