"""Several gateways on one PostgreSQL: any takes any mail, any may die, limits hold for all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from relaygw.store import migrate
from tests.campaign import times
from tests.e2e.fleet import Start, arrived, send_all, status_of, worker_of
from tests.e2e.gateway import Gateway, provider_settings
from tests.fakes.limited_provider import LimitedProvider
from tests.fakes.notice_receiver import NoticeReceiver
from tests.fakes.scripted_provider import Action, ThreadedProvider
from tests.forked import RelaygwProcess, run_relaygw
from tests.postgres import running_server

SHARED = times(30, campaign=200)


@pytest.mark.campaign
def test_instances_share_a_queue_and_send_each_message_once(start: Start) -> None:
    with ThreadedProvider() as provider:
        settings = {"p": provider_settings(provider.port)}
        fleet = [start(name, providers=settings) for name in ("gw1", "gw2", "gw3")]
        sent = [
            sent_number
            for number, gateway in enumerate(fleet)
            for sent_number in send_all(gateway, SHARED, first=number * SHARED)
        ]
        provider.wait_for_messages(len(sent))
        for gateway in fleet:
            gateway.wait_until_empty()
        assert arrived(provider) == Counter(sent)
        fleet[0].wait_until(
            lambda: (
                [one.messages for one in fleet[0].store.sources.sum_mail("host", 0)] == [len(sent)]
            ),
            "all counted",
        )
        names = {
            entry.name
            for entry in fleet[0].store.instances.registered()
            if entry.role == "delivery"
        }
    assert names == {"gw1.test", "gw2.test", "gw3.test"}


def test_mail_of_an_instance_without_a_worker_is_sent_by_another_at_once(start: Start) -> None:
    with ThreadedProvider() as provider:
        settings = {"p": provider_settings(provider.port)}
        front, worker = start("gw1", providers=settings), start("gw2", providers=settings)
        os.kill(worker_of(front), signal.SIGSTOP)
        started_s = time.monotonic()
        send_all(front, 20)
        provider.wait_for_messages(20)
        assert time.monotonic() - started_s < 10, "hints and polls reach the other instance"
        assert worker.pids("delivery")
        os.kill(front.pids("delivery")[0], signal.SIGCONT)


def test_the_mail_of_a_dead_instance_is_taken_over(start: Start) -> None:
    with ThreadedProvider() as provider, NoticeReceiver() as receiver:
        settings = {"p": provider_settings(provider.port, max_connections=10)}
        dead = start("gw1", providers=settings)
        provider.script("CONTENT", *[Action.HANG] * 10)
        sent = send_all(dead, 80)
        provider.wait_until(lambda: provider.pending("CONTENT") == 0)
        alerts = [{"webhook": receiver.url, "on": ["instance_lost"]}]
        other = start("gw2", providers=settings, alerts=alerts, alert_rules={"lasting": "100ms"})
        other.wait_until(lambda: bool(other.pids("front")), "a front")
        mended = other.kill("front")  # by its own supervisor, which nobody has to be told of
        other.wait_until(lambda: mended not in other.pids("front"), "a fresh front")
        leaving = start("gw3", providers=settings)
        assert leaving.stop() == 0
        dead.kill_all()
        killed_s = time.monotonic()
        provider.wait_for_messages(1, limit_s=35.0)
        took_over_s = time.monotonic() - killed_s
        provider.wait_for_messages(80, limit_s=90.0)
        other.wait_until_empty()
        counts = arrived(provider)
        receiver.wait_for(1)
        roles = ["delivery", "front", "web"]
        other.wait_until(
            lambda: sorted(one.role for one in other.store.watch.lost_instances(0)) == roles,
            "all lost",
        )
        shown = run_relaygw(
            ["--config", str(other.config), "status"],
            capture_output=True,
            text=True,
            env=other.environment,
            check=True,
        )
        dead.start()
        receiver.wait_for(2)
    assert [(one["key"], one["state"]) for one in receiver.bodies] == [
        ("gw1.test", "open"),
        ("gw1.test", "recovered"),
    ], "neither a crash that was mended nor a clean stop is told"
    assert "gateway gw1.test is lost (" in receiver.bodies[0]["summary"]
    lost = [line.split() for line in shown.stdout.splitlines() if line.endswith(" lost")]
    assert sorted(line[:2] for line in lost) == [[role, "gw1.test"] for role in roles]
    assert "gateway gw1.test is lost" in shown.stderr
    print(f"told after {receiver.taken_at_s[0] - killed_s:.1f} s")
    print(f"first re-delivery after {took_over_s:.1f} s")
    assert took_over_s <= 30
    assert set(counts) == set(sent)
    assert sum(counts.values()) == 80, "what hung was not taken by the provider"


def test_an_instance_that_slept_past_its_lease_sends_nothing_with_it(start: Start) -> None:
    with ThreadedProvider() as provider:
        settings = {"p": provider_settings(provider.port, max_connections=2)}
        sleeper = start("gw1", providers=settings)
        provider.script("DATA", *[Action.HANG] * 2)
        sent = send_all(sleeper, 40)
        provider.wait_until(lambda: provider.pending("DATA") == 0)
        other = start("gw2", providers=settings)
        pid = worker_of(sleeper)
        os.kill(pid, signal.SIGSTOP)
        try:
            provider.wait_for_messages(40, limit_s=90.0)
            other.wait_until_empty()
        finally:
            os.kill(pid, signal.SIGCONT)
        sleeper.wait_for_log("a new worker replaces it")
        more = send_all(sleeper, 10, first=100)
        provider.wait_for_messages(50)
        sleeper.wait_until_empty()
        assert arrived(provider) == Counter(sent + more)


def test_a_rate_holds_for_all_instances_together(start: Start) -> None:
    # two more than configured: one that is being closed counts there a moment longer
    with ThreadedProvider(LimitedProvider, rate_per_s=1000, connections=8) as provider:
        settings = {"p": provider_settings(provider.port, rate="50/s", max_connections=6)}
        fleet = [start(name, providers=settings) for name in ("gw1", "gw2")]
        for number, gateway in enumerate(fleet):
            send_all(gateway, 75, first=1000 * number)
        provider.wait_for_messages(150, limit_s=90.0)
        times = provider.accepted_at_s
    # bench/alone measures how well it is used; here it only must not be exceeded
    assert times[-1] - times[0] >= 149 / 50 - 0.36
    assert provider.turned_away_at_s == []


def wait_for_beats(gateway: Gateway, count: int) -> None:
    """Wait until the worker of a gateway has renewed its leases so often."""
    pid = worker_of(gateway)
    for _ in range(count):
        before = beat_of(gateway, pid)
        gateway.wait_until(lambda before=before: beat_of(gateway, pid) != before, "a heartbeat")


def beat_of(gateway: Gateway, pid: int) -> int:
    """Return when a worker last renewed its leases."""
    return next(
        one.heartbeat_at_ms for one in gateway.store.instances.registered() if one.pid == pid
    )


def test_a_gateway_with_the_name_of_another_says_so(start: Start) -> None:
    with ThreadedProvider() as provider:
        settings = {"p": provider_settings(provider.port)}
        first = start("gw1", providers=settings)
        first.wait_for_roles()
        first.reload()
        other = start("gw2", hostname="gw1.test", providers=settings)
        other.wait_for_log("another gateway of this queue has the hostname gw1.test")
        assert not [line for line in first.lines if "another gateway" in line]


def test_mail_in_the_maildrop_of_a_leaving_instance_is_not_left_behind(start: Start) -> None:
    with ThreadedProvider() as provider:
        settings = {"p": provider_settings(provider.port)}
        leaving = start("gw1", providers=settings)
        maildrop = Path(leaving.settings["maildrop"]["path"])
        leaving.wait_until((maildrop / "wake").exists, "a maildrop")
        (maildrop / f"{'0' * 32}.drop").write_bytes(b"relaygw drop 1\n")  # nobody can take it
        done = run_relaygw(
            ["--config", str(leaving.config), "drain", "--grace", "0s", "--wait", "10s", "--json"],
            env=leaving.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == os.EX_TEMPFAIL, done.stderr
        assert "1 messages are in the maildrop" in done.stderr
        assert json.loads(done.stdout)["maildrop"] == 1


def test_what_one_instance_learns_all_know(start: Start) -> None:
    with ThreadedProvider() as provider:
        settings = {"p": provider_settings(provider.port)}
        one, other = start("gw1", providers=settings), start("gw2", providers=settings)
        # a worker that has just started would try a held provider at once
        os.kill(worker_of(one), signal.SIGSTOP)
        send_all(other, 1, first=500)
        provider.wait_for_messages(1, limit_s=90.0)
        other.wait_until_empty()
        os.kill(worker_of(one), signal.SIGCONT)
        os.kill(worker_of(other), signal.SIGSTOP)
        provider.script("MAIL", b"550 5.4.5 Daily user sending limit exceeded\r\n")
        send_all(one, 1)
        one.wait_for_log("provider p is held")
        os.kill(other.pids("delivery")[0], signal.SIGCONT)
        os.kill(one.pids("delivery")[0], signal.SIGSTOP)
        wait_for_beats(other, 2)  # it has looked at the holds by then
        seen = len(provider.connections)
        send_all(other, 5, first=10)
        other.wait_until(lambda: len(other.queue()) == 6, "six wait")
        assert len(provider.connections) == seen, "the other one does not try"
        os.kill(one.pids("delivery")[0], signal.SIGCONT)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("CREATE TABLE orders (id integer)", "the database has no queue and is not empty (public."),
        ("CREATE SCHEMA shop CREATE VIEW sold AS SELECT 1", "is not empty (shop.sold)"),
        ("CREATE TABLE alembic_version (version_num text)", "(public.alembic_version)"),
        (
            "CREATE TABLE alembic_version AS SELECT '0006' AS version_num",
            "the queue has schema 0006, this version needs",
        ),
    ],
)
def test_a_gateway_refuses_a_database_that_is_not_empty_and_no_queue_of_its_version(
    tmp_path: Path, postgres_url: str, statement: str, words: str
) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(statement)
        settings = {"p": provider_settings(1)}
        gateway = Gateway(tmp_path, providers=settings, queue={"url": postgres_url})
        gateway.write_config()
        done = run_relaygw(
            ["--config", str(gateway.config), "serve"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == os.EX_UNAVAILABLE
        assert words in done.stderr
        assert "relaygw db upgrade" in done.stderr
        assert connection.execute("SELECT to_regclass('message')").fetchone() == (None,)


def test_an_empty_database_is_set_up_once_by_gateways_that_start_at_once(
    tmp_path: Path, postgres_url: str
) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION pg_stat_statements")  # its views are nobody's tables
    with ThreadedProvider() as provider, ExitStack() as stack:
        settings = {"p": provider_settings(provider.port)}
        gateways = []
        for name in ("gw1", "gw2"):
            (tmp_path / name).mkdir()
            queue = {"url": postgres_url, "min_free": "0%"}
            gateways.append(
                Gateway(tmp_path / name, hostname=f"{name}.test", providers=settings, queue=queue)
            )
        with ThreadPoolExecutor() as threads:
            list(threads.map(stack.enter_context, gateways))
        send_all(gateways[0], 1)
        provider.wait_for_messages(1)
        lines = [line for gateway in gateways for line in gateway.lines]
        assert sum("was empty, and now holds a queue" in line for line in lines) == 1


def test_a_database_that_may_forget_is_refused(tmp_path: Path) -> None:
    from relaygw.errors import StoreUnavailable
    from relaygw.store.database import Place
    from relaygw.store.store import open_store

    with running_server(fsync="off") as server:
        url = server.create_database()
        store = open_store(url)
        with pytest.raises(StoreUnavailable, match="fsync = off"):
            store.instances.registered()
        store.close()
        migrate.upgrade(Place(url=url, allow_unsafe=True))
        store = open_store(Place(url=url, allow_unsafe=True))
        assert store.instances.registered() == []
        store.close()


def test_drain_takes_an_instance_out_and_leaves_its_mail_to_the_others(start: Start) -> None:
    with ThreadedProvider() as provider:
        settings = {"p": provider_settings(provider.port, max_connections=1)}
        leaving, other = start("gw1", providers=settings), start("gw2", providers=settings)
        os.kill(worker_of(other), signal.SIGSTOP)
        sent = send_all(leaving, 50)
        drain = RelaygwProcess(
            ["--config", str(leaving.config), "drain", "--grace", "2s", "--wait", "60s"],
            env=leaving.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        leaving.wait_until(lambda: status_of(leaving, "/readyz") == 503, "not ready")
        assert status_of(leaving, "/healthz") == 200
        sent += send_all(leaving, 1, first=900)
        out, err = drain.communicate(timeout=60)
        assert drain.returncode == 0, err
        assert "the other instances have its mail" in out
        leaving.wait_until(lambda: not leaving.is_running, "the end of the instance")
        assert status_of(other, "/readyz") == 200, "the others are not drained"
        os.kill(worker_of(other), signal.SIGCONT)
        other.wait_until_empty()
        assert arrived(provider) == Counter(sent)
