"""PostgreSQL restarts, crashes, or throws its clients out while mail flows (F10, F11).

What was acknowledged is delivered, and as no gateway is killed, each message once.
"""

from __future__ import annotations

import http.client
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.campaign import times
from tests.e2e.fleet import CONTENT, Traffic, begin, starter, status_of
from tests.e2e.gateway import PATIENCE_S, Gateway, provider_settings
from tests.fakes.scripted_provider import ThreadedProvider
from tests.postgres import PostgresServer, running_server
from tests.queues import new_queue

pytestmark = pytest.mark.campaign

ROUNDS = times(2, campaign=5)
_OF_GATEWAYS = "FROM pg_stat_activity WHERE application_name = 'relaygw'"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """Return a server of these tests' own: others would suffer with it."""
    with running_server() as server:
        yield server


@pytest.fixture
def fleet(
    tmp_path: Path, server: PostgresServer, provider: ThreadedProvider
) -> Iterator[list[Gateway]]:
    with ExitStack() as stack:
        start = starter(tmp_path, new_queue(server), stack)
        settings = {"p": provider_settings(provider.port)}
        yield [start(name, providers=settings) for name in ("gw1", "gw2")]


@pytest.mark.parametrize("immediately", [False, True], ids=["fast", "immediate"])
def test_the_server_restarts(
    fleet: list[Gateway], server: PostgresServer, provider: ThreadedProvider, immediately: bool
) -> None:
    with Traffic(*fleet) as traffic:
        for _ in range(ROUNDS):
            traffic.wait_for_more(20)
            server.restart(immediately=immediately)
        traffic.wait_for_more(20)
    traffic.wait_until_delivered(fleet[0], provider)
    traffic.check(provider)


def test_all_connections_are_terminated_again_and_again(
    fleet: list[Gateway], server: PostgresServer, provider: ThreadedProvider
) -> None:
    ended = 0
    with Traffic(*fleet) as traffic:
        for _ in range(2 * ROUNDS):
            traffic.wait_for_more(20)
            ended += len(server.execute(f"SELECT pg_terminate_backend(pid) {_OF_GATEWAYS}"))
        traffic.wait_for_more(20)
    traffic.wait_until_delivered(fleet[0], provider)
    print(f"{ended} connections ended")
    traffic.check(provider)


def test_connections_are_terminated_in_the_middle_of_commit(
    fleet: list[Gateway], server: PostgresServer, provider: ThreadedProvider
) -> None:
    """A COMMIT that waits for a standby is done and not answered: its fate has to be looked up."""
    waiting = f"{_OF_GATEWAYS} AND wait_event = 'SyncRep'"
    ended = 0
    with Traffic(*fleet) as traffic:
        for _ in range(ROUNDS):
            traffic.wait_for_more(20)
            server.set("synchronous_standby_names", "nobody")
            while not (found := server.execute(f"SELECT pg_terminate_backend(pid) {waiting}")):
                time.sleep(0.05)
            ended += len(found)
            server.set("synchronous_standby_names", "")
        traffic.wait_for_more(20)
    traffic.wait_until_delivered(fleet[0], provider)
    print(f"{ended} connections ended within COMMIT")
    traffic.check(provider)


@contextmanager
def silent(server: PostgresServer, how: str) -> Iterator[None]:
    """Let a server be there and say nothing for the length of a with block."""
    if how == "frozen":
        server.signal_all(signal.SIGSTOP)
        try:
            yield
        finally:
            server.signal_all(signal.SIGCONT)
    else:
        with server.commits_wait():
            yield


@pytest.mark.parametrize("how", ["frozen", "waits for its standby"])
def test_a_server_that_is_there_and_silent(
    fleet: list[Gateway], server: PostgresServer, provider: ThreadedProvider, how: str
) -> None:
    """Clients are refused before their own patience ends, and readiness is over before that."""
    with fleet[0].connect() as client:
        assert client.command(b"EHLO shop.test").startswith("250")
        assert begin(client).startswith("354")
        await_status(fleet[0], 200)
        with silent(server, how):
            client.send(CONTENT % 0 + b".\r\n")
            began_s = time.monotonic()
            await_status(fleet[0], 503)
            assert client.read_reply().startswith("451 4.3.0")
            print(f"{how}: refused after {time.monotonic() - began_s:.1f} s")
        await_status(fleet[0], 200)
    with Traffic(*fleet) as traffic:
        traffic.wait_for_more(20)
    traffic.wait_until_delivered(fleet[0], provider)


def test_roles_that_die_meanwhile_come_back_and_say_what_is_wrong(
    fleet: list[Gateway], server: PostgresServer, provider: ThreadedProvider
) -> None:
    gateway = fleet[0]
    await_status(gateway, 200)
    roles = {role: gateway.pids(role)[0] for role in ("front", "web")}
    server.stop()
    for pid in roles.values():
        os.kill(pid, signal.SIGKILL)
    try:
        await_status(gateway, 503)
        assert status_of(gateway, "/healthz") == 200
        with gateway.connect() as client:
            assert client.command(b"EHLO shop.test").startswith("250")
            assert begin(client).startswith("354")
            assert client.command(CONTENT % 0 + b".").startswith("451 4.3.0")
    finally:
        server.start()
    await_status(gateway, 200)
    with Traffic(gateway) as traffic:
        traffic.wait_for_more(10)
    traffic.wait_until_delivered(gateway, provider)


def await_status(gateway: Gateway, status: int) -> None:
    """Wait until a gateway's readiness has an HTTP status; its database may be silent."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        with suppress(OSError, http.client.HTTPException):  # its process may have died just now
            if status_of(gateway, "/readyz") == status:
                return
        assert time.monotonic() < deadline_s, status
        time.sleep(0.1)
