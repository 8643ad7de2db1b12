"""What several files of this folder need."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.fleet import Start, starter
from tests.e2e.gateway import Gateway
from tests.e2e.sendmail_rig import Installation
from tests.fakes.scripted_provider import ThreadedProvider
from tests.queues import EmptyQueues


@pytest.fixture
def provider() -> Iterator[ThreadedProvider]:
    with ThreadedProvider() as running:
        yield running


@pytest.fixture
def start(tmp_path: Path, queue_url: str) -> Iterator[Start]:
    """Return what starts a gateway of the fleet by a name; they share one database."""
    with ExitStack() as gateways:
        yield starter(tmp_path, queue_url, gateways)


@pytest.fixture(scope="module")
def installed() -> Iterator[Installation]:
    with tempfile.TemporaryDirectory(prefix="relaygw-sendmail-") as root:
        yield Installation(Path(root))


@pytest.fixture
def command(installed: Installation) -> Installation:
    installed.clear()
    return installed


@pytest.fixture(params=["sqlite", "postgres"])
def each_database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run a test once on either database; return which.

    On PostgreSQL each gateway has a database of its own, as it has a file on SQLite, and keeps
    it when it starts again.
    """
    urls: dict[Path, str] = {}
    with ExitStack() as lent:
        if request.param == "postgres":
            queues: EmptyQueues = request.getfixturevalue("empty_queues")

            def url_of(directory: Path) -> str:
                if directory not in urls:
                    urls[directory] = lent.enter_context(queues.lend())
                return urls[directory]

            monkeypatch.setattr(Gateway, "queue_url", staticmethod(url_of))
        yield request.param
