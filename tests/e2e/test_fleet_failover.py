"""The primary dies and its synchronous standby is promoted: the gateways follow (F12)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.fleet import Traffic, starter, worker_of
from tests.e2e.gateway import provider_settings
from tests.fakes.scripted_provider import ThreadedProvider
from tests.postgres import PostgresServer, Standby, running_server

_REPLICAS = "SELECT sync_state FROM pg_stat_replication"


@pytest.fixture
def servers() -> Iterator[tuple[PostgresServer, Standby]]:
    """Return a primary and the standby that it waits for at every commit."""
    with running_server() as primary:
        standby = Standby(primary)
        try:
            standby.start()
            primary.set("synchronous_standby_names", "*")
            while primary.execute(_REPLICAS) != [("sync",)]:
                time.sleep(0.02)
            yield primary, standby
        finally:
            standby.remove()


def wherever_it_is(url: str, *servers: PostgresServer) -> str:
    """Return the URL of a database that is where one of these servers takes writes."""
    hosts = ",".join(server.host for server in servers)
    ports = ",".join(str(server.port) for server in servers)
    where = f"host={hosts}&port={ports}&target_session_attrs=read-write"
    return f"postgresql://relaygw@/{url.rpartition('/')[2]}?{where}"


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)


def test_gateways_follow_to_the_standby_and_nothing_acknowledged_is_lost(
    tmp_path: Path, servers: tuple[PostgresServer, Standby]
) -> None:
    primary, standby = servers
    with ThreadedProvider() as provider, ExitStack() as stack:
        url = wherever_it_is(primary.create_database(), primary, standby)
        start = starter(tmp_path, url, stack)
        settings = {"p": provider_settings(provider.port)}
        fleet = [start(name, providers=settings) for name in ("gw1", "gw2")]
        workers = [worker_of(gateway) for gateway in fleet]
        with Traffic(*fleet) as traffic:
            traffic.wait_for_more(60)
            signal_all(workers, signal.SIGSTOP)  # from here on mail is nowhere but in the queue
            traffic.wait_for_more(60)
            primary.kill()
            standby.promote()
            signal_all(workers, signal.SIGCONT)
            traffic.wait_for_more(60)
        traffic.wait_until_delivered(fleet[0], provider)
        traffic.check(provider)
