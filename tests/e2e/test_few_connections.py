"""A PostgreSQL that grants few connections: shared by front, worker and web, and told."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.e2e.fleet import Start, arrived, send_all, starter, status_of, worker_of
from tests.e2e.gateway import Gateway, provider_settings
from tests.fakes.scripted_provider import ThreadedProvider
from tests.forked import run_relaygw
from tests.postgres import PostgresServer
from tests.queues import make_queue

ROLE = "few"


@pytest.fixture
def few_url(postgres: PostgresServer, postgres_url: str) -> Iterator[str]:
    """Return the URL of a queue for a role that is no superuser."""
    make_queue(postgres_url)
    postgres.execute(f"CREATE ROLE {ROLE} LOGIN")
    for what in ("TABLES", "SEQUENCES"):
        postgres.execute(f"GRANT ALL ON ALL {what} IN SCHEMA public TO {ROLE}", postgres_url)
    yield postgres_url.replace("relaygw@", f"{ROLE}@")
    postgres.execute(f"DROP OWNED BY {ROLE} CASCADE", postgres_url)
    postgres.execute(f"DROP ROLE {ROLE}")


def run(gateway: Gateway, *words: str) -> CompletedProcess[str]:
    words = ("--config", str(gateway.config), *words)
    return run_relaygw(words, capture_output=True, text=True, timeout=90)


def limit(postgres: PostgresServer, connections: int) -> None:
    postgres.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT {connections}")


def test_all_mail_is_sent_with_five_connections(
    tmp_path: Path, postgres: PostgresServer, few_url: str, provider: ThreadedProvider
) -> None:
    limit(postgres, 5)
    with ExitStack() as stack:
        gateway = starter(tmp_path, few_url, stack)(
            "gw1",
            providers={"p": provider_settings(provider.port, max_connections=10)},
            guard={"new_per_hour": 1000},
        )
        wanted = "PostgreSQL grants 5 connections, and 1 gateway of 3 processes should have 30: "
        wanted += "each process opens 1 at most, and mail may wait; run: ALTER ROLE few CONNECTION"
        gateway.wait_for_log(f"warning: {wanted} LIMIT 30")
        send_all(gateway, 303)
        provider.wait_for_messages(303)
        gateway.wait_until_empty()
        assert status_of(gateway, "/readyz") == 200
        assert f"warning: queue.url: {wanted} LIMIT 30" in run(gateway, "check").stderr
        assert arrived(provider).total() == 303


def test_a_worker_that_gets_no_connection_is_told_of_and_goes_on_once_it_gets_one(
    tmp_path: Path, postgres: PostgresServer, few_url: str, provider: ThreadedProvider
) -> None:
    with ExitStack() as stack:
        start: Start = starter(tmp_path, few_url, stack)
        told = tmp_path / "told"
        gateway = start(
            "gw1",
            providers={"p": provider_settings(provider.port)},
            alert_rules={"lasting": "1s"},
            alerts=[{"command": ["/bin/sh", "-c", f"cat >>{told}"]}],
        )
        worker = worker_of(gateway)
        limit(postgres, 0)
        os.kill(worker, signal.SIGKILL)
        gateway.wait_for_log("warning: the worker waits: .*too many connections for role")
        words = "the delivery worker of gw1.test cannot use its queue, and sends nothing"
        gateway.wait_for_log(f"warning: alert: {words}")
        gateway.wait_until(lambda: told.exists() and words in told.read_text(), "the alert")
        shown = run(gateway, "status")
        assert shown.returncode == os.EX_UNAVAILABLE
        assert "too many connections for role" in shown.stderr
        heads = [line.split()[0] for line in shown.stdout.splitlines()]
        assert heads == ["relaygw", "queue", "maildrop"], "what is known without it"
        limit(postgres, -1)
        send_all(gateway, 1)
        provider.wait_for_messages(1)
        gateway.wait_until(lambda: status_of(gateway, "/readyz") == 200, "ready")
