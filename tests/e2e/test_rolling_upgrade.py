"""`relaygw db upgrade` of a later version under gateways of this one: they go on.

The later schema is this one with what an additive step brings: a nullable column in each table
of the hot path, a new table, an index, and another revision number.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from relaygw.store import migrate
from tests.e2e.fleet import Traffic, arrived, send_all, starter, worker_of
from tests.e2e.gateway import Gateway, provider_settings
from tests.fakes.scripted_provider import Action, ThreadedProvider
from tests.forked import run_relaygw
from tests.postgres import PostgresServer
from tests.queues import new_queue

LATER = "9999"


@pytest.fixture
def fleet_url(postgres: PostgresServer) -> Iterator[str]:
    """Return the URL of an empty queue whose schema may be changed."""
    url = new_queue(postgres)
    yield url
    postgres.drop_database(url)


def upgrade_to_a_later_version(url: str) -> int:
    """Do what a later `relaygw db upgrade` does, again after a deadlock; return its tries."""
    for tries in range(1, 20):
        try:
            change_all_tables(url)
        except psycopg.errors.DeadlockDetected:
            continue
        return tries
    raise AssertionError("always a deadlock")


def change_all_tables(url: str) -> None:
    """Change each table in one transaction, so that it is done whole or not at all."""
    with psycopg.connect(url) as connection:
        for table in ("message", "delivery", "recipient", "chunk", "instance", "hold", "permit"):
            connection.execute(f"ALTER TABLE {table} ADD COLUMN later TEXT")
        connection.execute("CREATE TABLE later (id BIGINT PRIMARY KEY, note TEXT)")
        connection.execute("CREATE INDEX later_due ON delivery (provider, due_at_ms)")
        connection.execute("UPDATE alembic_version SET version_num = %s", (LATER,))


def wait_for_all_roles(gateway: Gateway) -> None:
    """Return once each role has looked at the schema."""
    gateway.wait_for_roles()


def test_a_running_gateway_goes_on_through_an_upgrade_under_load(
    tmp_path: Path, fleet_url: str, provider: ThreadedProvider
) -> None:
    with ExitStack() as stack:
        start = starter(tmp_path, fleet_url, stack)
        settings = {"p": provider_settings(provider.port)}
        fleet = [start(name, providers=settings) for name in ("gw1", "gw2")]
        for gateway in fleet:
            wait_for_all_roles(gateway)
        with Traffic(*fleet) as traffic:
            traffic.wait_for_more(50)
            print(f"upgraded by try {upgrade_to_a_later_version(fleet_url)}")
            traffic.wait_for_more(80)
        traffic.wait_until_delivered(fleet[0], provider)
        traffic.check(provider)
        for gateway in fleet:
            assert not [line for line in gateway.lines if "ended by" in line], gateway.lines
            assert gateway.stop() == 0


def test_what_a_dead_old_instance_held_is_taken_over_after_the_upgrade(
    tmp_path: Path, fleet_url: str, provider: ThreadedProvider
) -> None:
    with ExitStack() as stack:
        start = starter(tmp_path, fleet_url, stack)
        settings = {"p": provider_settings(provider.port, max_connections=1)}
        dead = start("gw1", providers=settings)
        wait_for_all_roles(dead)
        provider.script("CONTENT", Action.HANG)
        sent = send_all(dead, 40)
        provider.wait_until(lambda: provider.pending("CONTENT") == 0)
        other = start("gw2", providers=settings)  # the only connection is taken
        wait_for_all_roles(other)
        upgrade_to_a_later_version(fleet_url)
        dead.kill_all()
        other.wait_until(lambda: set(arrived(provider)) == set(sent), "all mail delivered")
        other.wait_until_empty()


def test_a_role_of_the_old_version_that_dies_after_the_upgrade_does_not_come_back(
    tmp_path: Path, fleet_url: str, provider: ThreadedProvider
) -> None:
    with ExitStack() as stack:
        start = starter(tmp_path, fleet_url, stack)
        settings = {"p": provider_settings(provider.port)}
        hurt, other = (start(name, providers=settings) for name in ("gw1", "gw2"))
        for gateway in (hurt, other):
            wait_for_all_roles(gateway)
        upgrade_to_a_later_version(fleet_url)
        os.kill(worker_of(hurt), signal.SIGKILL)
        hurt.wait_for_log(f"schema {LATER}")
        sent = send_all(hurt, 20)
        other.wait_until(lambda: set(arrived(provider)) == set(sent), "sent by the other one")
        assert hurt.is_running


def test_an_old_version_does_not_start_on_a_later_schema(tmp_path: Path, postgres_url: str) -> None:
    migrate.upgrade(postgres_url)
    upgrade_to_a_later_version(postgres_url)
    gateway = Gateway(tmp_path, providers={"p": provider_settings(1)}, queue={"url": postgres_url})
    gateway.write_config()
    done = run_relaygw(
        ["--config", str(gateway.config), "serve"],
        env=gateway.environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode in (os.EX_CONFIG, os.EX_UNAVAILABLE)
    assert f"schema {LATER}" in done.stderr
