"""Whoever makes mail due lets this host's workers look at once."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.mail.state import DeliveryState
from relaygw.store import hints
from tests.integration.cli.conftest import Desk


@pytest.fixture
def worker(desk: Desk, tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of a worker that only listens."""
    receiver = hints.open_hint_socket(hints.hint_directory(tmp_path / "state"), "w1")
    assert receiver is not None
    with receiver:
        yield receiver


def is_woken(worker: socket.socket) -> bool:
    try:
        return worker.recv(16) == b""
    except BlockingIOError:
        return False


@pytest.mark.parametrize(
    ("state", "verb"), [(DeliveryState.DEFERRED, "retry"), (DeliveryState.HELD, "release")]
)
def test_mail_that_is_made_due_wakes_workers(
    desk: Desk, worker: socket.socket, state: DeliveryState, verb: str
) -> None:
    queue_id = desk.add()
    desk.attempt(state, reason="451 later")
    assert desk.run("queue", verb, queue_id, "--dry-run").exit_code == 0
    assert not is_woken(worker), "nothing was changed"
    assert desk.run("queue", verb, queue_id, "--yes").exit_code == 0
    assert is_woken(worker)


def test_a_change_without_a_worker_is_a_change(desk: Desk) -> None:
    queue_id = desk.add()
    assert desk.run("queue", "hold", queue_id, "--yes").exit_code == 0
    assert desk.states(queue_id) == {DeliveryState.HELD}
