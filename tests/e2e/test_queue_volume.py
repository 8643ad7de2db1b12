"""A SQLite queue whose volume is full or broken, or that is locked: 4xx, and nothing is lost."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from bench.cutting.volume import Volume
from tests.e2e.fleet import Traffic
from tests.e2e.gateway import Gateway, provider_settings
from tests.e2e.volumes import filled, small_volume, without_inodes
from tests.fakes.scripted_provider import ThreadedProvider
from tests.rights import needs

CONNECTIONS = 5
LARGE = b"Subject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * 30_000


def gateway_on(volume: Path, provider: ThreadedProvider) -> Gateway:
    """Return a gateway with all that it writes on a volume."""
    directory = volume / "gateway"
    directory.mkdir()
    here = provider_settings(provider.port, max_connections=CONNECTIONS)
    return Gateway(directory, providers={"main": here})


@needs("mounts")
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


@needs("mounts")
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
        traffic.wait_until_delivered(gateway, provider)
        assert send_large(gateway).startswith("250")
    assert not traffic.refused


def send_large(gateway: Gateway) -> str:
    """Send mail that does not stay in memory; return the answer to its content."""
    with gateway.connect() as client:
        client.command(b"EHLO shop.test")
        for command in (b"MAIL FROM:<a@shop.test>", b"RCPT TO:<b@cust.test>", b"DATA"):
            reply = client.command(command)
            assert reply[:3] in ("250", "354"), reply
        return client.command(LARGE + b".")


@needs("disks")
def test_a_disk_that_breaks_is_told_of_and_all_that_was_promised_is_on_it(
    tmp_path: Path, provider: ThreadedProvider
) -> None:
    volume = Volume(tmp_path, file_system="ext4", size_bytes=64 * 2**20)
    with (
        volume.recorded(),
        gateway_on(volume.place, provider) as gateway,
        Traffic(gateway) as traffic,
    ):
        traffic.wait_for_more(20)
        volume.break_down()
        gateway.wait_until(lambda: len(traffic.refused) > 3, "refusals")
    with volume.mounted(volume.content), gateway:
        traffic.wait_until_delivered(gateway, provider)
    traffic.check(provider, twice=CONNECTIONS)


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
