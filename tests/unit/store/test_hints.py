"""Hints reach whoever listens now, and the sockets of the dead do not pile up."""

from __future__ import annotations

import socket
from pathlib import Path
from stat import S_IMODE

from relaygw.store.hints import HintSender, open_hint_socket


def opened(directory: Path, name: str) -> socket.socket:
    receiver = open_hint_socket(directory, name)
    assert receiver is not None
    return receiver


def test_a_receiver_that_comes_later_is_woken_by_the_next_hint(tmp_path: Path) -> None:
    first = opened(tmp_path, "first")
    sender = HintSender(tmp_path)
    sender.send()
    second = opened(tmp_path, "second")
    sender.send()
    assert first.recv(1) == first.recv(1) == second.recv(1) == b""
    for each in (first, second):
        each.close()
    sender.close()


def test_the_sockets_are_for_their_user_alone(tmp_path: Path) -> None:
    opened(tmp_path / "wake", "first").close()
    assert S_IMODE((tmp_path / "wake").stat().st_mode) == 0o700


def test_the_socket_of_a_killed_receiver_is_removed(tmp_path: Path) -> None:
    opened(tmp_path, "dead").close()
    sender = HintSender(tmp_path)
    sender.send()
    sender.close()
    assert list(tmp_path.iterdir()) == []
