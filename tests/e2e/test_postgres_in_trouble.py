"""PostgreSQL with a full volume, or with a part of the queue gone, while mail flows.

What cannot be stored is refused for now, the outcome of what was sent is kept until it can be
recorded, and all is well again once the trouble is over.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.fleet import Traffic, starter, status_of, worker_of
from tests.e2e.gateway import Gateway, provider_settings
from tests.e2e.volumes import filled, small_volume
from tests.fakes.scripted_provider import ThreadedProvider
from tests.postgres import PostgresServer, running_server
from tests.queues import new_queue
from tests.rights import needs

_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
LINE = b"x" * 78 + b"\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_server() as server:
        yield server


@contextmanager
def fleet_on(
    directory: Path, url: str, provider: ThreadedProvider, names: tuple[str, ...] = ("gw1", "gw2")
) -> Iterator[list[Gateway]]:
    with ExitStack() as stack:
        start = starter(directory, url, stack)
        yield [start(name, providers={"p": provider_settings(provider.port)}) for name in names]


@needs("mounts")
def test_the_volume_of_the_tables_is_full(
    tmp_path: Path, server: PostgresServer, provider: ThreadedProvider
) -> None:
    with small_volume(server.directory / "small", "size=48m", owner="postgres") as volume:
        server.execute(f"CREATE TABLESPACE small LOCATION '{volume}'")
        url = new_queue(server, "TABLESPACE small")
        with fleet_on(tmp_path, url, provider) as fleet:
            with Traffic(*fleet) as traffic:
                traffic.wait_for_more(20)
                with filled(volume):
                    fleet[0].wait_until(lambda: "452 4.3.1" in str(traffic.refused), "452 4.3.1")
                traffic.wait_for_more(40)
            traffic.wait_until_delivered(fleet[0], provider)
            traffic.check(provider)
        server.drop_database(url)
        server.execute("DROP TABLESPACE small")


@needs("mounts")
def test_the_volume_of_the_whole_server_is_full(tmp_path: Path, provider: ThreadedProvider) -> None:
    """The server cannot write its log: it ends, and is started again when there is room."""
    small_log = {"min_wal_size": "32MB", "max_wal_size": "32MB"}
    with ExitStack() as stack:
        server = PostgresServer()
        stack.callback(server.remove)
        volume = stack.enter_context(
            small_volume(server.directory / "small", "size=200m", owner="postgres")
        )
        server.move_data(volume / "data")
        server.start(**small_log)
        with fleet_on(tmp_path, new_queue(server), provider) as fleet:
            with Traffic(*fleet) as traffic:
                traffic.wait_for_more(20)
                with filled(volume):
                    fleet[0].wait_until(lambda: bool(traffic.refused), "a refusal")
                    server.kill()
                server.start(**small_log)
                traffic.wait_for_more(40)
            traffic.wait_until_delivered(fleet[0], provider)
            traffic.check(provider)
        server.stop()


def test_each_table_is_gone_for_a_while(
    tmp_path: Path, server: PostgresServer, provider: ThreadedProvider
) -> None:
    """A table is away, as in a copy that is not complete: mail waits, and nothing goes twice."""
    url = new_queue(server)
    with fleet_on(tmp_path, url, provider) as fleet:
        with Traffic(*fleet) as traffic:
            traffic.wait_for_more(20)
            tables = server.execute(_TABLES, url)
            assert len(tables) > 10
            for (table,) in tables:
                tried = traffic.tried
                server.execute(f'ALTER TABLE "{table}" RENAME TO "{table}_gone"', url)
                fleet[0].wait_until(lambda seen=tried: traffic.tried >= seen + 4, "more tries")
                server.execute(f'ALTER TABLE "{table}_gone" RENAME TO "{table}"', url)
                traffic.wait_for_more(2)
        traffic.wait_until_delivered(fleet[0], provider)
        traffic.check(provider)


def test_a_worker_that_can_claim_nothing_is_told_of(
    tmp_path: Path, server: PostgresServer, provider: ThreadedProvider
) -> None:
    """What only it needs lacks: its heartbeat goes on, and so does the front."""
    url = new_queue(server)
    with ExitStack() as stack:
        gateway = starter(tmp_path, url, stack)(
            "gw1",
            providers={"p": provider_settings(provider.port)},
            alert_rules={"lasting": "1s"},
        )
        worker_of(gateway)
        gateway.wait_until(lambda: status_of(gateway, "/readyz") == 200, "ready")
        server.execute("ALTER TABLE delivery RENAME COLUMN lease TO lease_gone", url)
        gateway.send("a@shop.test", ["b@cust.test"], b"Subject: x\r\n\r\nx\r\n")
        gateway.wait_until(lambda: status_of(gateway, "/readyz") == 503, "not ready")
        (told,) = gateway.wait_for_log("warning: alert: the delivery worker of gw1.test cannot use")
        assert 'column "lease" of relation "delivery" does not exist' in told
        server.execute("ALTER TABLE delivery RENAME COLUMN lease_gone TO lease", url)
        provider.wait_for_messages(1)
        gateway.wait_until(lambda: status_of(gateway, "/readyz") == 200, "ready again")


def test_the_file_of_the_content_is_gone_for_a_while(
    tmp_path: Path, server: PostgresServer, provider: ThreadedProvider
) -> None:
    """What cannot be read waits without a charge, and goes once when it is there again."""
    url = new_queue(server)
    with fleet_on(tmp_path, url, provider, ("gw1",)) as (gateway,):
        worker = worker_of(gateway)
        os.kill(worker, signal.SIGSTOP)
        gateway.send("a@shop.test", ["b@cust.test"], b"Subject: x\r\n\r\n" + LINE * 25_000)
        server.execute("CHECKPOINT")
        ((name,),) = server.execute("SELECT pg_relation_filepath('chunk')", url)
        file = server.data / name
        server.stop()
        file.rename(file.with_suffix(".gone"))
        server.start()
        os.kill(worker, signal.SIGCONT)
        gateway.wait_for_log("warning: .*could not open file")
        server.stop()
        file.with_suffix(".gone").rename(file)
        server.start()
        provider.wait_for_messages(1)
        gateway.wait_until_empty()
    assert len(provider.messages) == 1
