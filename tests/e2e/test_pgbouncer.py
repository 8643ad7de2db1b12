"""Gateways that reach PostgreSQL through pgbouncer: what works in which of its modes."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Thread

import psycopg
import pytest

from relaygw.store.database import Place
from relaygw.store.hints import NotifySender
from relaygw.store.postgres import create_postgres_engine
from relaygw.store.word_index import WordIndex
from tests.e2e.fleet import arrived, send_all, starter, worker_of
from tests.e2e.gateway import provider_settings
from tests.e2e.pooler import pooler
from tests.fakes.scripted_provider import ThreadedProvider
from tests.postgres import PostgresServer
from tests.queues import make_queue

_PATIENCE_S = 90.0


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_instances_share_a_queue_through_a_pooler(
    tmp_path: Path, postgres: PostgresServer, postgres_url: str, mode: str
) -> None:
    with (
        pooler(postgres, postgres_url, mode) as url,
        ThreadedProvider() as provider,
        ExitStack() as stack,
    ):
        start = starter(tmp_path, url, stack)
        settings = {
            "providers": {"p": provider_settings(provider.port, max_connections=10)},
            "guard": {"new_per_hour": 1000},  # no word about so much new mail
        }
        fleet = [start(name, **settings) for name in ("gw1", "gw2")]
        sent = [
            subject
            for number, gateway in enumerate(fleet)
            for subject in send_all(gateway, 40, first=number * 1000)
        ]
        provider.wait_for_messages(len(sent))
        for gateway in fleet:
            gateway.wait_until_empty()
            assert not [line for line in gateway.lines if "warning: " in line]
        assert arrived(provider).total() == len(sent)


def test_the_lock_of_who_rebuilds_the_index_of_words_holds_through_a_pooler(
    postgres: PostgresServer, postgres_url: str
) -> None:
    make_queue(postgres_url)
    with (
        pooler(postgres, postgres_url, "transaction") as url,
        psycopg.connect(postgres_url, autocommit=True) as looking,
    ):

        def count(sql: str) -> int:
            row = looking.execute(f"SELECT count(*) FROM {sql}").fetchone()
            assert row is not None
            return int(row[0])

        first, second = (
            WordIndex(partial(create_postgres_engine, Place(url=url)), least_bytes=0, bloat=0.0)
            for _ in range(2)
        )
        building = "pg_stat_activity WHERE query LIKE 'REINDEX %' AND state = 'active'"
        thread = Thread(target=first.look)
        with psycopg.connect(postgres_url) as reader:
            reader.execute("SELECT 1 FROM mail_search")  # whoever builds waits for its end
            thread.start()
            until_s = time.monotonic() + _PATIENCE_S
            while not count(building) and time.monotonic() < until_s:
                time.sleep(0.01)
            second.look()
            assert count(building) == 1
        thread.join()
        for one in (first, second):
            one.look_if_due()  # nothing went wrong
        assert count("pg_locks WHERE locktype = 'advisory'") == 0


def seconds_to_another_instance(tmp_path: Path, url: str) -> tuple[float, list[float]]:
    """Return how long mail waits, message by message, once its own worker is stopped.

    Before them is what it takes with its own worker, on a machine as busy as this one.
    """
    waits, own = [], []
    with ThreadedProvider() as provider, ExitStack() as stack:
        start = starter(tmp_path, url, stack)
        settings = {"p": provider_settings(provider.port)}
        front, _ = (start(name, providers=settings) for name in ("gw1", "gw2"))
        for number in range(5):
            began_s = time.monotonic()
            send_all(front, 1, first=200 + number)
            provider.wait_for_messages(1 + number)
            own.append(time.monotonic() - began_s)
        os.kill(worker_of(front), signal.SIGSTOP)
        send_all(front, 2)
        provider.wait_for_messages(7)
        for number in range(8):
            time.sleep(0.1 * number)  # at any time between two polls
            began_s = time.monotonic()
            send_all(front, 1, first=100 + number)
            provider.wait_for_messages(8 + number)
            waits.append(time.monotonic() - began_s)
    return sorted(own)[2], waits


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_hints_pass_a_pooler_in_session_mode_and_a_poll_does_in_the_other(
    tmp_path: Path, postgres: PostgresServer, queue_url: str, mode: str
) -> None:
    with pooler(postgres, queue_url, mode) as url:
        own, waits = seconds_to_another_instance(tmp_path, url)
    print(mode, [f"{wait:.2f}" for wait in waits])
    if mode == "session":
        assert sorted(waits)[len(waits) // 2] < 0.3 + 2 * own, "the hint, not the poll"


def test_what_a_hint_is_sent_with_stays_with_its_connection(
    postgres: PostgresServer, postgres_url: str
) -> None:
    place = Place(url=postgres_url)
    with pooler(postgres, postgres_url, "transaction") as url, psycopg.connect(url) as other:
        sender = NotifySender(Place(url=url))
        with psycopg.connect(place.url, autocommit=True) as witness:
            witness.execute("LISTEN relaygw_queue")
            for _ in range(8):  # more often than a driver sends anything without preparing it
                sender.send()
                assert list(witness.notifies(timeout=_PATIENCE_S, stop_after=1))
        sender.close()
        found = other.execute("SHOW synchronous_commit").fetchone()
        prepared = other.execute("SELECT statement FROM pg_prepared_statements").fetchall()
    assert found == ("on",), "another client got the same session of the server"
    assert prepared == []
