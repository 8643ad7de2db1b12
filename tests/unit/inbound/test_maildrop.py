"""The maildrop at work: what holds up one file, or all of them, and what becomes of the rest."""

from __future__ import annotations

import asyncio
import io
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from relaygw import volume
from relaygw.errors import StoreUnavailable
from relaygw.inbound import maildrop
from relaygw.inbound.committer import GroupCommitter
from relaygw.inbound.drop_directory import DropDirectory
from relaygw.inbound.intake import Intake
from relaygw.inbound.local_requests import LocalRequests
from relaygw.inbound.maildrop import Maildrop
from relaygw.mail.drop import WAKE_PIPE
from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.search import EVERYTHING
from relaygw.observe.maildrop import OURS, look_at_maildrop
from relaygw.settings.model import Settings
from relaygw.store.selection import Selection
from tests.altered_store import AlteredStore
from tests.logs import text_log
from tests.queues import make_queue
from tests.unit.inbound.test_drop_file import drop_bytes

LIMIT_BYTES = 100_000
PROVIDER: dict[str, object] = {
    "providers": {"main": {"host": "smtp.example.com"}},
    "routes": [{"name": "default", "providers": ["main"]}],
}
HOLDS_A_LEASE = """
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
held = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
if os.geteuid() == 0:
    os.fchown(held, 65534, 65534)
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
sys.stdin.read()
"""


class TroubledStore(AlteredStore):
    """A real store that is unavailable for the first `failures` batches."""

    failures = 0

    def accept_batch(self, messages: Sequence[AcceptedMessage]) -> dict[str, str]:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("no database")
        again: dict[str, str] = super().accept_batch(messages)
        return again


@dataclass
class Rig:
    """A maildrop that is served, its store and its log."""

    directory: Path
    store: TroubledStore
    log: io.StringIO

    def leave(self, data: bytes | None = None) -> Path:
        """Put a file there; return its path."""
        path = self.directory / f"{secrets.token_hex(16)}.drop"
        path.write_bytes(drop_bytes(b"Subject: x\n\nhello\n") if data is None else data)
        return path

    def plant(self, name: bytes) -> None:
        """Put what is no mail there, and directories in the place of what the front makes."""
        Path(os.fsdecode(os.fsencode(self.directory) + b"/" + name)).write_bytes(b"x")
        for own in OURS:
            (self.directory / own).mkdir(exist_ok=True)

    @property
    def told(self) -> dict[str, str]:
        """Files that are left alone, and why, without how often something failed."""
        found = look_at_maildrop(str(self.directory))
        assert found is not None
        return {one.name: one.reason.rpartition("times: ")[2] for one in found.named}

    @property
    def captured(self) -> int:
        return len(self.store.sandbox.captured_ids(EVERYTHING, limit=9))


@asynccontextmanager
async def serving(tmp_path: Path, rig: Rig, **sections: object) -> AsyncIterator[Rig]:
    settings = Settings.model_validate(
        {
            "mode": "sandbox",
            "listeners": [{"bind": "127.0.0.1:25", "max_message_size": LIMIT_BYTES}],
            "maildrop": {"path": str(rig.directory)},
            "queue": {"min_free": "0%"},
            **sections,
        }
    )
    committer = GroupCommitter(rig.store, committed=lambda _: None)
    service = Maildrop(
        settings,
        store=rig.store,
        intake=Intake(settings, state_dir=tmp_path),
        committer=committer,
        log=text_log(rig.log),
        requests=lambda directory: LocalRequests(
            directory, settings, lambda _actor, _queue_id: 0, text_log(rig.log)
        ),
        look_around=lambda: lambda way: "",
    )
    service.start()
    async with asyncio.timeout(90):
        yield rig
    await service.ended(5)
    await committer.drain()


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    url = f"sqlite:///{tmp_path}/queue.db"
    make_queue(url)
    directory = tmp_path / "maildrop"
    directory.mkdir()
    return Rig(directory, TroubledStore(url), io.StringIO())


async def until(condition: Callable[[], bool]) -> None:
    while True:
        if condition():
            return
        await asyncio.sleep(0.01)


async def test_files_stay_until_the_store_is_back(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maildrop, "MAX_BACKOFF_S", 0.05)
    rig.store.failures = 9
    files = [rig.leave() for _ in range(3)]
    async with serving(tmp_path, rig):
        await until(lambda: rig.store.failures < 9)
        assert all(file.exists() for file in files)
        await until(lambda: not any(file.exists() for file in files))
    assert rig.captured == 3
    assert rig.store.queue.search(Selection(), limit=9) == []
    assert rig.log.getvalue().count("no database; local mail stays in the maildrop") == 1
    assert rig.log.getvalue().count("local mail is accepted again") == 1
    rig.store.close()


async def test_a_lease_that_another_user_holds_on_a_file_stops_no_other_mail(
    rig: Rig, tmp_path: Path
) -> None:
    held = rig.directory / f"{'0' * 32}.drop"
    command = [sys.executable, "-c", HOLDS_A_LEASE, str(held)]
    with subprocess.Popen(  # noqa: ASYNC220 - nothing runs in the loop yet
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        async with serving(tmp_path, rig):
            for _ in range(3):  # each look meets the lease again
                file = rig.leave()
                await until(lambda file=file: not file.exists())  # type: ignore[misc]
            assert holder.poll() is None
            await until(lambda: rig.told == {held.name: "a program holds a lease on it"})
        holder.kill()
    assert held.exists()
    assert "local mail stays in the maildrop" not in rig.log.getvalue()
    assert rig.captured == 3
    rig.store.close()


async def test_mail_above_the_limit_that_the_command_took_is_captured_with_its_reason(
    rig: Rig, tmp_path: Path
) -> None:
    content = b"Subject: report\n\n" + b"x" * 70 + b"\n"
    file = rig.leave(drop_bytes(content + b"y" * LIMIT_BYTES))
    large = rig.leave(drop_bytes(content + (b"z" * 70 + b"\n") * 30_000))
    async with serving(tmp_path, rig, mode="production", **PROVIDER):
        await until(lambda: not file.exists() and not large.exists())
    for queue_id in rig.store.sandbox.captured_ids(EVERYTHING, limit=9):
        found = rig.store.sandbox.captured_entry(queue_id)
        assert found is not None
        (recipient,) = found.entry.recipients
        assert recipient.reply == f"larger than max_message_size, {LIMIT_BYTES} bytes"
        assert found.entry.size_bytes > LIMIT_BYTES
    assert rig.captured == 2
    rig.store.close()


async def test_a_header_above_the_limit_is_captured_with_its_reason(
    rig: Rig, tmp_path: Path
) -> None:
    head = b"X-Long: y\n" + (b" " + b"z" * 70 + b"\n") * 2000 + b"Subject: last\n"
    file = rig.leave(drop_bytes(head + b"\nhi\n"))
    longer = rig.leave(drop_bytes(head[:-15] * 40 + b"\nhi\n"))  # longer than anybody reads
    listeners = [{"bind": "127.0.0.1:25", "max_header_size": "100KiB"}]
    async with serving(tmp_path, rig, mode="production", listeners=listeners, **PROVIDER):
        await until(lambda: not file.exists() and not longer.exists())
    ids = rig.store.sandbox.captured_ids(EVERYTHING, limit=9)
    found = [one for one in map(rig.store.sandbox.captured_entry, ids) if one is not None]
    assert sorted(one.entry.subject for one in found) == ["", "last"]
    for one in found:
        (recipient,) = one.entry.recipients
        assert recipient.reply == "header longer than max_header_size, 102400 bytes"
    rig.store.close()


async def test_a_large_file_waits_until_there_is_room_and_small_ones_do_not(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = SimpleNamespace(f_bavail=65, f_blocks=10_000, f_frsize=2**20)
    monkeypatch.setattr(volume.os, "statvfs", lambda _: found)
    large = rig.leave(drop_bytes(b"Subject: report\n\n" + (b"z" * 70 + b"\n") * 30_000))
    async with serving(tmp_path, rig):
        await until(lambda: "it would fill the volume; tried again" in rig.log.getvalue())
        small = rig.leave()
        await until(lambda: not small.exists())
        assert large.exists()
        assert "local mail stays in the maildrop" not in rig.log.getvalue(), "it alone waits"
        found.f_bavail = 75
        await until(lambda: not large.exists())
    assert rig.captured == 2
    rig.store.close()


async def test_names_that_are_no_mails_stop_none(rig: Rig, tmp_path: Path) -> None:
    for name in (b"\xff\xfe.drop", b"\xff" * 32 + b".drop", b"a\nb", b"wake\xc3", b"..."):
        rig.plant(name)
    async with serving(tmp_path, rig):
        for _ in range(2):
            file = rig.leave()
            await until(lambda file=file: not file.exists())  # type: ignore[misc]
    assert rig.captured == 2
    assert rig.log.getvalue().count("not a mail file name") == 5
    assert rig.log.getvalue().count(f"{rig.directory}/reasons: not written: ") == 1
    rig.store.close()


async def test_after_a_look_in_vain_the_front_rests(
    tmp_path: Path, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody changes the directory and wakes the front all the time."""
    looks: list[tuple[float, float]] = []
    usual = DropDirectory.look

    def look(*arguments: Any) -> Any:
        begun_s = time.monotonic()
        found = usual(*arguments)
        time.sleep(0.02)  # as among a hundred thousand names
        looks.append((begun_s, time.monotonic()))
        return found

    monkeypatch.setattr(DropDirectory, "look", look)
    async with serving(tmp_path, rig):
        await until((rig.directory / WAKE_PIPE).exists)
        pipe = os.open(rig.directory / WAKE_PIPE, os.O_WRONLY | os.O_NONBLOCK)
        while len(looks) < 6:
            (rig.directory / "changed").touch()
            (rig.directory / "changed").unlink()
            os.write(pipe, b"x")
            await asyncio.sleep(0)
        os.close(pipe)
    # a rest is never shorter, however busy the machine is
    for (begun_s, ended_s), (next_s, _) in pairwise(looks):
        assert next_s - ended_s >= 8 * (ended_s - begun_s)
