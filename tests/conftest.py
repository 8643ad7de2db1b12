"""Fixtures of several rooms."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests import compiled_statements, durations, fork_server, once, own_mounts, rights
from tests.postgres import PostgresServer, running_server
from tests.queues import EmptyQueues, make_queue
from tests.workers import Workers

# what takes long on a busy machine is no failure
hypothesis.settings.register_profile(
    "tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-durations", action="store_true", help="write tests/durations.json anew"
    )
    parser.addoption("--workers", type=int, default=0, help="run the tests by so many processes")


def _pass(*_: object) -> None:
    pass


def pytest_configure(config: pytest.Config) -> None:
    # nohup and a shell's background ignore these, and what a test starts would inherit that;
    # a handler is not inherited
    handlers = {signal.SIGQUIT: _pass, signal.SIGHUP: _pass}
    for number, handler in {signal.SIGINT: signal.default_int_handler, **handlers}.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    if config.option.record_durations:
        config.pluginmanager.register(durations.Recorder())
    if config.option.workers:
        config.pluginmanager.register(Workers(config.option.workers))
    compiled_statements.share()
    once.directory()  # of all workers, which begin after this
    own_mounts.leave_others()
    tempfile.tempdir = once.fast_place()  # of tmp_path too


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rights.leave_out(items)
    durations.longest_first(items)


def pytest_report_collectionfinish(items: list[pytest.Item]) -> list[str]:
    return list(rights.describe(items))


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    gc.disable()  # thousands of tests, which nobody need look at again and again
    try:
        return (yield)
    finally:
        gc.enable()
        if session.config.option.workers:
            fork_server.load_what_is_kept()  # once for all workers
        gc.freeze()
        gc.set_threshold(100_000)


@pytest.fixture(scope="session", autouse=True)
def own_directories() -> Iterator[None]:
    """Let commands of the tests know of no gateway but theirs, and no state of this machine."""
    with tempfile.TemporaryDirectory() as directory:
        os.environ["RELAYGW_RUN_DIR"] = directory
        os.environ["XDG_STATE_HOME"] = f"{directory}/state"
        os.umask(0o022)  # servers of other users read what tests write, whatever the caller's is
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Return a server that all tests of the session share."""
    with running_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """Return the URL of an empty database of the test's own."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture(scope="session")
def empty_queues(postgres: PostgresServer) -> Iterator[EmptyQueues]:
    """Return what lends empty queues on the server of the session."""
    with contextlib.closing(EmptyQueues(postgres)) as queues:
        yield queues


@pytest.fixture
def queue_url(empty_queues: EmptyQueues) -> Iterator[str]:
    """Return the URL of an empty queue, for a test that changes nothing but its rows."""
    with empty_queues.lend() as url:
        yield url


@pytest.fixture
def is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let names below .invalid be known to be nobody's, as a resolver that answers says."""
    resolve = socket.getaddrinfo

    def look_up(host: Any, *more: Any, **how: Any) -> Any:
        if str(host).endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *more, **how)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty queue on each database in turn."""
    if request.param == "postgres":
        found: str = request.getfixturevalue("queue_url")
        return found
    made = f"sqlite:///{tmp_path}/queue.db"
    make_queue(made)
    return made
