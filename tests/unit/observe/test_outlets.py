"""Outlets on real files, pipes, terminals and sockets."""

from __future__ import annotations

import contextlib
import errno
import os
import pty
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.observe import outlets
from relaygw.observe.outlets import FileOutlet, Outlet, OutletGone, StderrOutlet, SyslogOutlet

LINE = b"x" * 199 + b"\n"


def fill(outlet: Outlet) -> int:
    """Send lines until there is no room; return how many bytes went in."""
    taken = 0
    while True:
        try:
            taken += outlet.send([LINE] * 50)
        except BlockingIOError:
            return taken


# --- files -------------------------------------------------------------------------------


def test_a_file_is_appended_to_and_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    path.write_bytes(b"before\n")
    outlet = FileOutlet(path)
    assert outlet.send([b"one\n", b"two\n"]) == 8
    path.rename(tmp_path / "mail.log.1")
    outlet.send([b"still the old one\n"])
    outlet.reopen()
    outlet.send([b"three\n"])
    outlet.close()
    assert (tmp_path / "mail.log.1").read_bytes() == b"before\none\ntwo\nstill the old one\n"
    assert path.read_bytes() == b"three\n"
    assert path.stat().st_mode & 0o777 & ~0o640 == 0


def test_the_group_may_read_a_new_file_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    before = os.umask(0o077)
    try:
        outlet = FileOutlet(path)
        outlet.send([b"one\n"])
        assert path.stat().st_mode & 0o777 == 0o640
        path.chmod(0o600)  # as somebody wants it who has made it
        outlet.reopen()
        assert path.stat().st_mode & 0o777 == 0o600
        outlet.close()
    finally:
        os.umask(before)


def test_a_file_that_cannot_be_opened_again_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "logs/mail.log"
    path.parent.mkdir()
    outlet = FileOutlet(path)
    outlet.send([b"one\n"])
    path.parent.rename(tmp_path / "old")
    with pytest.raises(FileNotFoundError):
        outlet.reopen()
    outlet.send([b"two\n"])
    outlet.close()
    assert (tmp_path / "old/mail.log").read_bytes() == b"one\ntwo\n"


def test_a_missing_directory_is_an_error_until_it_is_there(tmp_path: Path) -> None:
    outlet = FileOutlet(tmp_path / "later/mail.log")
    with pytest.raises(FileNotFoundError):
        outlet.send([b"one\n"])
    (tmp_path / "later").mkdir()
    assert outlet.send([b"one\n"]) == 4
    outlet.close()


@pytest.mark.parametrize(
    ("room_bytes", "whole_bytes"), [(3, None), (4, 4), (5, 4), (8, 8), (13, 8), (14, 14)]
)
def test_only_whole_lines_count_and_after_a_torn_one_the_next_begins_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room_bytes: int, whole_bytes: int | None
) -> None:
    """A disk that is full within a line; the e2e test has a real one."""
    path, write, records = tmp_path / "mail.log", os.write, [b"one\n", b"two\n", b"three\n"]
    outlet = FileOutlet(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: write(file, data[:room_bytes]))
        if whole_bytes is None:
            with pytest.raises(OSError, match="No space left"):
                outlet.send(records)
        else:
            assert outlet.send(records) == whole_bytes
    assert outlet.send([b"four\n"]) == 5
    outlet.close()
    kept = b"".join(records)[:room_bytes]
    assert path.read_bytes() == kept + b"\n" * (not kept.endswith(b"\n")) + b"four\n"


def test_a_full_device_is_an_error() -> None:
    outlet = FileOutlet(Path("/dev/full"))
    with pytest.raises(OSError, match="No space left") as caught:
        outlet.send([b"one\n"])
    outlet.close()
    assert caught.value.errno == errno.ENOSPC


# --- stderr ------------------------------------------------------------------------------


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def test_a_pipe_takes_whole_lines_and_never_blocks(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    outlet = StderrOutlet(writing)
    taken = fill(outlet)
    assert taken > 50_000
    assert taken % len(LINE) == 0
    assert os.get_blocking(writing)  # others write there, too
    assert len(os.read(reading, 10**6)) == taken
    assert outlet.send([b"more\n"]) == 5


def test_a_pipe_of_another_user_never_blocks_either(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlets, "_AGAIN", "/proc/self/no such descriptor/{}")
    outlet = StderrOutlet(pipe[1])
    taken = fill(outlet)
    assert len(os.read(pipe[0], 10**6)) == taken > 50_000


def test_a_closed_pipe_is_gone(pipe: tuple[int, int]) -> None:
    outlet = StderrOutlet(pipe[1])
    os.close(pipe[0])
    with pytest.raises(OutletGone):
        outlet.send([LINE])


def test_a_closed_descriptor_is_gone(pipe: tuple[int, int]) -> None:
    os.close(pipe[1])
    with pytest.raises(OutletGone):
        StderrOutlet(pipe[1]).send([LINE])


def test_waiting_ends_when_a_reader_makes_room(pipe: tuple[int, int]) -> None:
    outlet = StderrOutlet(pipe[1])
    fill(outlet)
    timer = threading.Timer(0.05, os.read, (pipe[0], 10**6))
    timer.start()
    outlet.wait(30)
    timer.join()
    assert outlet.send([LINE]) == len(LINE)


def test_a_socket_as_the_journal_gives_one_never_blocks() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        outlet = StderrOutlet(ours.fileno())
        taken = fill(outlet)
        assert taken > 50_000
        assert ours.getblocking()
        theirs.close()
        with pytest.raises(OutletGone):
            outlet.send([LINE])
        outlet.close()


def test_a_terminal_that_was_stopped_never_blocks() -> None:
    master, slave = pty.openpty()
    try:
        fill(StderrOutlet(slave))
        assert os.get_blocking(slave)
    finally:
        os.close(master)
        os.close(slave)


def test_a_file_as_stderr(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        assert StderrOutlet(file.fileno()).send([LINE] * 100) == 100 * len(LINE)


# --- syslog ------------------------------------------------------------------------------


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "log"))
        listening.settimeout(60)
        yield listening


def test_each_record_is_a_datagram(daemon: socket.socket, tmp_path: Path) -> None:
    outlet = SyslogOutlet(tmp_path / "log")
    assert outlet.send([b"<22>one", b"<22>two"]) == 14
    assert [daemon.recv(100), daemon.recv(100)] == [b"<22>one", b"<22>two"]
    outlet.close()


def test_a_hanging_daemon_never_blocks(daemon: socket.socket, tmp_path: Path) -> None:
    outlet = SyslogOutlet(tmp_path / "log")
    taken = fill(outlet)
    assert taken % len(LINE) == 0
    outlet.wait(0.01)
    daemon.recv(1000)
    while select.select([daemon], [], [], 0)[0]:
        daemon.recv(1000)
    outlet.wait(30)
    assert outlet.send([b"on"]) == 2
    outlet.close()


def test_no_daemon_is_an_error_until_there_is_one(tmp_path: Path) -> None:
    outlet = SyslogOutlet(tmp_path / "log")
    with pytest.raises(FileNotFoundError):
        outlet.send([b"one"])
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "log"))
        assert outlet.send([b"one"]) == 3
        outlet.close()


def test_a_restarted_daemon_is_found_again(daemon: socket.socket, tmp_path: Path) -> None:
    outlet = SyslogOutlet(tmp_path / "log")
    outlet.send([b"one"])
    daemon.close()
    (tmp_path / "log").unlink()
    with pytest.raises(FileNotFoundError):
        outlet.send([b"two"])
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as fresh:
        fresh.bind(str(tmp_path / "log"))
        outlet.send([b"three"])
        assert fresh.recv(100) == b"three"
    outlet.close()


def test_a_record_that_no_daemon_takes_is_cut(daemon: socket.socket, tmp_path: Path) -> None:
    outlet = SyslogOutlet(tmp_path / "log")
    record = b"y" * 2_000_000
    assert outlet.send([record]) == len(record)
    assert daemon.recv(10_000) == b"y" * 1024
    outlet.close()
