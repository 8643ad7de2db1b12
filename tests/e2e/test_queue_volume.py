"""A SQLite queue whose volume is full or whose file is locked: 4xx, and all is well again."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.e2e.fleet import Traffic
from tests.e2e.gateway import Gateway, provider_settings
from tests.e2e.volumes import filled, needs_root, small_volume, without_inodes
from tests.fakes.scripted_provider import ThreadedProvider

LARGE = b"Subject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * 30_000


def gateway_on(volume: Path, provider: ThreadedProvider) -> Gateway:
    """Return a gateway with all that it writes on a volume."""
    directory = volume / "gateway"
    directory.mkdir()
    return Gateway(directory, providers={"main": provider_settings(provider.port)})


@needs_root
def test_a_full_volume_refuses_for_now_and_nothing_is_sent_twice(
    tmp_path: Path, provider: ThreadedProvider
) -> None:
    with (
        small_volume(tmp_path / "small", "size=24m") as volume,
        gateway_on(volume, provider) as gateway,
    ):
        with Traffic(gateway) as traffic:
            traffic.wait_for_more(20)
            with filled(volume):
                gateway.wait_until(lambda: "452 4.3.1" in str(traffic.refused), "452 4.3.1")
            traffic.wait_for_more(40)
        traffic.wait_until_delivered(gateway, provider)
        traffic.check(provider)


@needs_root
def test_without_inodes_small_mail_flows_and_large_mail_is_refused_for_now(
    tmp_path: Path, provider: ThreadedProvider
) -> None:
    with (
        small_volume(tmp_path / "small", "size=48m,nr_inodes=400") as volume,
        gateway_on(volume, provider) as gateway,
    ):
        with Traffic(gateway) as traffic:
            traffic.wait_for_more(5)
            with without_inodes(volume):
                assert send_large(gateway).startswith("45")
                traffic.wait_for_more(10)
            assert send_large(gateway).startswith("250")
        traffic.wait_until_delivered(gateway, provider)
    assert not traffic.refused


def send_large(gateway: Gateway) -> str:
    """Send mail that does not stay in memory; return the answer to its content."""
    with gateway.connect() as client:
        client.command(b"EHLO shop.test")
        for command in (b"MAIL FROM:<a@shop.test>", b"RCPT TO:<b@cust.test>", b"DATA"):
            reply = client.command(command)
            assert reply[:3] in ("250", "354"), reply
        return client.command(LARGE + b".")


def test_a_queue_that_another_program_locks_refuses_for_now(
    tmp_path: Path, provider: ThreadedProvider
) -> None:
    with Gateway(tmp_path, providers={"main": provider_settings(provider.port)}) as gateway:
        with Traffic(gateway) as traffic:
            traffic.wait_for_more(5)
            with closing(sqlite3.connect(tmp_path / "state" / "queue.db")) as other:
                other.isolation_level = None
                other.execute("BEGIN IMMEDIATE")
                with gateway.connect() as client:  # which waits for no queue
                    assert client.greeting.startswith("220")
                    assert client.command(b"NOOP").startswith("250")
                    gateway.wait_until(lambda: bool(traffic.refused), "a refusal")
                    assert client.command(b"NOOP").startswith("250")
                other.execute("ROLLBACK")
            traffic.wait_for_more(5)
        traffic.wait_until_delivered(gateway, provider)
        traffic.check(provider)
    assert "451 4.3.0" in str(traffic.refused)
