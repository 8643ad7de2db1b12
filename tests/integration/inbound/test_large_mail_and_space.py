"""Large mail that would fill the volume is put off; small mail of the same moment is not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from relaygw import volume
from relaygw.inbound.content import MEMORY_BYTES
from tests.integration.inbound.front_rig import running_front
from tests.integration.inbound.test_client_limits import send


async def test_it_is_answered_452_and_taken_once_there_is_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = SimpleNamespace(f_bavail=66, f_blocks=10_000, f_frsize=MEMORY_BYTES)
    monkeypatch.setattr(volume.os, "statvfs", lambda _: found)
    large = b"Subject: large\r\n\r\n" + b"0123456789abcdef\r\n" * (MEMORY_BYTES // 18)
    async with running_front(tmp_path) as rig:
        client = await rig.greeted()
        assert await send(client, large) == "452 4.3.1 Insufficient system storage"
        assert "bytes more it would fill the volume; answered 452" in rig.log.getvalue()
        assert (await send(client)).startswith("250 ")
        found.f_bavail = 68
        assert (await send(client, large)).startswith("250 ")


async def test_mail_that_comes_at_once_is_refused_before_the_volume_is_full(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = SimpleNamespace(f_bavail=3, f_blocks=10_000, f_frsize=MEMORY_BYTES)
    monkeypatch.setattr(volume.os, "statvfs", lambda _: found)
    monkeypatch.setattr(volume, "_LOOK_AGAIN_S", 3600.0)
    content = b"Subject: x\r\n\r\n" + b"0123456789abcdef\r\n" * (MEMORY_BYTES // 20)
    async with running_front(tmp_path) as rig:
        first, second, third = [await rig.greeted() for _ in range(3)]
        for client in (first, second, third):  # all ask while there is room
            for command in (b"MAIL FROM:<a@b.test>", b"RCPT TO:<c@d.test>", b"DATA"):
                assert (await client.command(command))[0] in "23"
        assert (await first.command(content + b".")).startswith("250 ")
        assert (await second.command(content + b".")).startswith("250 ")
        assert (await third.command(content + b".")).startswith("452 ")
        assert await send(first) == "452 4.3.1 Insufficient system storage"
