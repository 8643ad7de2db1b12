"""A PostgreSQL that takes no writes for a while, as managed ones do once a volume is full.

A session that began meanwhile stays read only for ever: nobody may be left with one, neither the
gateway nor a pooler on its way.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from relaygw.store.store import open_store
from tests.builders import accepted
from tests.e2e.fleet import begin, send_all, starter
from tests.e2e.gateway import Gateway, provider_settings
from tests.e2e.pooler import pooler
from tests.fakes.scripted_provider import ThreadedProvider
from tests.postgres import PostgresServer
from tests.queues import make_queue

_CUT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type LIKE 'client%'
"""


def set_read_only(server: PostgresServer, url: str, value: str) -> None:
    database = url.rpartition("/")[2]
    server.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = {value}")


def reply_to_mail(gateway: Gateway) -> str:
    with gateway.connect() as client:
        client.command(b"EHLO shop.test")
        assert begin(client).startswith("354")
        return client.command(b"Subject: x\r\n\r\nx\r\n.")


@pytest.mark.parametrize("mode", ["direct", "session", "transaction"])
def test_mail_is_taken_and_sent_at_once_when_it_takes_writes_again(
    tmp_path: Path,
    postgres: PostgresServer,
    postgres_url: str,
    provider: ThreadedProvider,
    mode: str,
) -> None:
    make_queue(postgres_url)
    with ExitStack() as stack:
        url = postgres_url
        if mode != "direct":
            url = stack.enter_context(pooler(postgres, postgres_url, mode))
        start = starter(tmp_path, url, stack)
        gateway = start("gw1", providers={"p": provider_settings(provider.port)})
        send_all(gateway, 1)
        provider.wait_for_messages(1)
        set_read_only(postgres, postgres_url, "on")
        postgres.execute(_CUT, postgres_url)
        gateway.wait_for_log("warning: .*read-only transaction")
        set_read_only(postgres, postgres_url, "off")
        assert reply_to_mail(gateway).startswith("250"), "the first that comes"
        provider.wait_for_messages(2)
        gateway.wait_until_empty()


def test_no_session_stays_read_only_at_a_pooler(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """Whoever meets such a session ends it, also where the pooler has another one for him next."""
    make_queue(postgres_url)
    with pooler(postgres, postgres_url, "transaction") as url:
        set_read_only(postgres, postgres_url, "on")
        postgres.execute(_CUT, postgres_url)
        store = open_store(url)
        with store.database.read(), store.database.read(), store.database.read():
            pass  # the pooler has three of them now
        set_read_only(postgres, postgres_url, "off")
        store.intake.accept_batch([accepted() for _ in range(3)])
        store.close()
