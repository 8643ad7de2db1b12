"""Fixtures of several rooms."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

from tests.postgres import PostgresServer, running_server


@pytest.fixture(scope="session", autouse=True)
def own_run_directory() -> Iterator[None]:
    """Let commands of the tests know of no gateway but theirs."""
    with tempfile.TemporaryDirectory() as directory:
        os.environ["RELAYGW_RUN_DIR"] = directory
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
