"""A copy of the queue, taken while a gateway works, and what the next one does with it."""

from __future__ import annotations

import asyncio
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import yaml

from relaygw.mail.state import OPEN, DeliveryState
from tests.e2e.fleet import arrived, send_all, starter
from tests.e2e.gateway import Gateway, provider_settings
from tests.fakes.scripted_provider import Action, ThreadedProvider, Wait
from tests.forked import run_relaygw
from tests.postgres import PostgresServer

CONNECTIONS = 2
UNHELD = OPEN - {DeliveryState.HELD}


def restored(postgres: PostgresServer, url: str) -> str:
    """Dump a database as it is now into a new one, as docs/fleet.md does; return its URL."""
    copy = postgres.create_database()
    dump = subprocess.run(["pg_dump", "--dbname", url], check=True, capture_output=True)
    subprocess.run(
        ["psql", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", copy],
        input=dump.stdout,
        check=True,
        capture_output=True,
    )
    return copy


def queue_command(directory: Path, url: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `relaygw queue` on a queue, whether a gateway uses it or not."""
    config = directory / "queue.yaml"
    config.write_text(yaml.safe_dump({"mode": "sandbox", "queue": {"url": url}}))
    return run_relaygw(
        ["--config", str(config), "queue", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_dump_has_what_was_queued_or_being_sent_and_it_can_be_held_before_it_goes(
    tmp_path: Path, postgres: PostgresServer, queue_url: str
) -> None:
    with ThreadedProvider() as provider, ExitStack() as stack:
        settings = {"p": provider_settings(provider.port, max_connections=CONNECTIONS)}
        gateway = starter(tmp_path, queue_url, stack)("gw1", providers=settings)
        delivered = send_all(gateway, 10)
        provider.wait_for_messages(10)
        gateway.wait_until_empty()
        provider.script("CONTENT", *[Action.HANG] * CONNECTIONS)
        queued = send_all(gateway, 80, first=100)
        provider.wait_until(lambda: provider.pending("CONTENT") == 0)
        copy = restored(postgres, queue_url)
        gateway.kill_all()

        held = queue_command(tmp_path, copy, "hold", "--all", "--yes", "--note", "restored")
        assert held.returncode in (os.EX_OK, os.EX_TEMPFAIL), held.stderr
        again = starter(tmp_path, copy, stack)("gw2", providers=settings)
        # what a worker held at the moment of the dump is nobody's after 20 s, and goes
        again.wait_until(lambda: not again.queue(UNHELD), "only held mail is left")
        leased = len(queued) - len(again.queue())
        assert len(arrived(provider)) == len(delivered) + leased
        print(f"{leased} of {len(queued)} were leased and could not be held")

        released = queue_command(tmp_path, copy, "release", "--all", "--yes")
        assert released.returncode == 0, released.stderr
        again.wait_until(lambda: set(arrived(provider)) == {*delivered, *queued}, "all sent")
        again.wait_until_empty()
        counts = arrived(provider)
    assert all(counts[number] == 1 for number in delivered), "what was finished stays so"


def run_db(gateway: Gateway, *words: str) -> str:
    done = run_relaygw(
        ["--config", str(gateway.config), "db", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def set_in_its_loop(event: asyncio.Event) -> None:
    event.set()


def test_what_was_sent_after_a_copy_is_not_sent_again_from_it(tmp_path: Path) -> None:
    copy, answered = tmp_path / "queue.copy", asyncio.Event()
    with ThreadedProvider() as provider:
        settings = {"p": provider_settings(provider.port, max_connections=CONNECTIONS)}
        with Gateway(tmp_path, providers=settings) as gateway:
            finished = send_all(gateway, 10)
            provider.wait_for_messages(10)
            gateway.wait_until_empty()
            slow = (Wait(answered), b"250 2.0.0 Ok\r\n")
            provider.script("CONTENT", *[slow] * CONNECTIONS)
            queued = send_all(gateway, 60, first=100)
            provider.wait_until(lambda: provider.pending("CONTENT") == 0)

            assert "70 messages, 60 not finished" in run_db(gateway, "backup", str(copy))
            provider.run(set_in_its_loop(answered))
            gateway.wait_until_empty()
            lost = send_all(gateway, 5, first=200)
            gateway.wait_until_empty()
        assert set(arrived(provider)) == {*finished, *queued, *lost}

        assert "held: 60 deliveries" in run_db(gateway, "restore", str(copy), "--yes")
        with Gateway(tmp_path, providers=settings) as gateway:
            new = send_all(gateway, 5, first=300)
            gateway.wait_until(lambda: not gateway.queue(UNHELD), "only held mail is left")
            assert len(gateway.queue()) == len(queued)
            counts = arrived(provider)
    assert counts == dict.fromkeys([*finished, *queued, *lost, *new], 1)
