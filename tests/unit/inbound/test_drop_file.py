"""Reading one file of the maildrop: what is mail, what is not yet, what never will be."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.inbound import drop_file
from relaygw.inbound.content import MEMORY_BYTES
from relaygw.inbound.drop_file import Drop, NotYet, Unfit, open_drop
from relaygw.mail.dsn_request import DsnRequest

NAME = "0123456789abcdef" * 2 + ".drop"
LIMIT_BYTES = 4 * 2**20


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def drop_bytes(content: bytes, *lines: bytes, count: int | None = None) -> bytes:
    head = b"relaygw drop 1\n" + b"".join(line + b"\n" for line in lines or (b"to b@cust.test",))
    size = len(content) if count is None else count
    return head + b"\n" + content + b"\nrelaygw end %d\n" % size


def read(directory: int, tmp_path: Path, *, limit_bytes: int = LIMIT_BYTES) -> Drop:
    opened = open_drop(directory, NAME, limit_bytes=limit_bytes)
    assert opened is not None
    with opened:
        drop = opened.read(tmp_path)
    drop.content.read_head()
    return drop


def make_old(path: Path) -> None:
    old_s = path.stat().st_mtime - drop_file.SETTLE_S - 1
    os.utime(path, (old_s, old_s))


def test_a_whole_file_is_read(directory: int, tmp_path: Path) -> None:
    lines = (b"cwd /srv", b"from a%25b@shop.test", b"later x", b"to b@cust.test", b"to root")
    path = tmp_path / NAME
    path.write_bytes(drop_bytes(b"Subject: x\n\nhello\r\nbare\rend", *lines))
    drop = read(directory, tmp_path)
    assert (drop.drop_id, drop.uid) == (NAME[:32], os.getuid())
    assert (drop.sender, drop.recipients) == ("a%b@shop.test", ("b@cust.test", "root"))
    assert drop.content.head == b"Subject: x\r\n\r\nhello\r\nbare\r\nend\r\n"


@pytest.mark.parametrize(
    ("line", "sender"),
    [
        (b"from ", ""),
        (b"cwd /", None),
        (b"from a@b%0D%0ARCPT TO:<c@d>", "a@b\r\nRCPT TO:<c@d>"),
        (b"from j\xe9@x.test", "j\\xe9@x.test"),
        ("from jé@x.test".encode(), "jé@x.test"),
    ],
)
def test_the_sender_is_what_the_line_says(
    directory: int, tmp_path: Path, line: bytes, sender: str | None
) -> None:
    (tmp_path / NAME).write_bytes(drop_bytes(b"", line, b"to b@cust.test"))
    assert read(directory, tmp_path).sender == sender


def test_where_it_was_written_and_what_its_sender_wants_to_hear(
    directory: int, tmp_path: Path
) -> None:
    lines = [b"cwd /srv/%0Ax", b"notify failure,delay", b"ret hdrs", b"envid o 1", b"to b@c.test"]
    (tmp_path / NAME).write_bytes(drop_bytes(b"", *lines))
    drop = read(directory, tmp_path)
    assert drop.cwd == "/srv/\nx"
    assert drop.dsn == DsnRequest(notify="FAILURE,DELAY", ret="HDRS", envid="o 1")
    wrong = [b"notify sometimes", b"ret all", b"envid " + b"x" * 101, b"to b@c.test"]
    (tmp_path / NAME).write_bytes(drop_bytes(b"", *wrong))
    drop = read(directory, tmp_path)
    assert (drop.cwd, drop.dsn) == (None, DsnRequest())


def test_content_that_looks_like_an_end_is_content(directory: int, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(drop_bytes(b"\nrelaygw end 0\n\nrelaygw drop 1\n\n"))
    content = read(directory, tmp_path).content.head
    assert content == b"\r\nrelaygw end 0\r\n\r\nrelaygw drop 1\r\n\r\n"


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_large_content_goes_to_a_file_with_its_line_ends_right(
    directory: int, tmp_path: Path, line_end: bytes
) -> None:
    # lines of 61 bytes with their end, so that pieces are cut at every place of a line
    lines = [b"%058d" % number + b"x" * (3 - len(line_end)) for number in range(40_000)]
    (tmp_path / NAME).write_bytes(drop_bytes(b"".join(line + line_end for line in lines)))
    drop = read(directory, tmp_path)
    assert drop.content.is_spooled
    chunks = b"".join(drop.content.chunks(drop.content.head))
    assert chunks == b"".join(line + b"\r\n" for line in lines)
    assert drop.content.size_bytes == len(chunks) > MEMORY_BYTES
    drop.content.close()


BROKEN = {
    "empty": b"",
    "cut": drop_bytes(b"hello")[:-3],
    "grown": drop_bytes(b"hello") + b"more",
    "count too small": drop_bytes(b"hello", count=4),
    "count too large": drop_bytes(b"hello", count=6),
    "count beyond the file": drop_bytes(b"hello", count=99),
    "no recipient": drop_bytes(b"hello", b"from a@shop.test"),
    "another version": drop_bytes(b"hello").replace(b"drop 1", b"drop 2"),
    "head never ends": b"relaygw drop 1\nto a@x.test\n\nrelaygw end 0\n",
    "head too long": drop_bytes(b"", *[b"to somebody@cust.test"] * 20_000),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_what_is_not_complete_gets_a_minute(directory: int, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / NAME
    path.write_bytes(data)
    with pytest.raises(NotYet):
        read(directory, tmp_path)
    make_old(path)
    with pytest.raises(Unfit, match="damaged"):
        read(directory, tmp_path)


def test_a_time_far_ahead_gains_no_patience(directory: int, tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(b"relaygw")
    os.utime(path, (2**33, 2**33))
    with pytest.raises(Unfit):
        read(directory, tmp_path)


@pytest.mark.parametrize("change", ["grow", "cut", "overwrite"])
def test_what_changes_between_the_looks_is_not_taken(
    directory: int, tmp_path: Path, change: str
) -> None:
    path = tmp_path / NAME
    whole = drop_bytes(b"x" * 3 * 2**20)
    path.write_bytes(whole)
    opened = open_drop(directory, NAME, limit_bytes=LIMIT_BYTES)
    assert opened is not None
    with path.open("r+b") as stream:
        if change == "grow":
            stream.seek(0, os.SEEK_END)
            stream.write(b"y")
        elif change == "cut":
            stream.truncate(2**20)
        else:
            stream.seek(-4, os.SEEK_END)
            stream.write(b"9")
    with opened, pytest.raises(NotYet):
        opened.read(tmp_path)


def test_only_regular_files_with_one_name_are_read(directory: int, tmp_path: Path) -> None:
    path, other = tmp_path / NAME, tmp_path / "other"
    other.write_bytes(drop_bytes(b"hello"))
    path.symlink_to(other)
    with pytest.raises(Unfit, match="symbolic link"):
        read(directory, tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(Unfit, match="not a regular file"):
        read(directory, tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(Unfit, match="not a regular file"):
        read(directory, tmp_path)
    path.rmdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"/proc/self/fd/{directory}/{NAME}")  # the path itself may be too long
        with pytest.raises(Unfit, match="socket"):
            read(directory, tmp_path)
    path.unlink()
    os.link(other, path)
    with pytest.raises(Unfit, match="hard link"):
        read(directory, tmp_path)


def test_a_huge_sparse_file_is_refused_by_its_size(directory: int, tmp_path: Path) -> None:
    with (tmp_path / NAME).open("wb") as stream:
        stream.truncate(10 * 2**30)
    with pytest.raises(Unfit, match="larger than"):
        open_drop(directory, NAME, limit_bytes=LIMIT_BYTES)


def test_content_over_the_limit_is_refused(directory: int, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(drop_bytes(b"x" * 101))
    with pytest.raises(Unfit, match="larger than"):
        open_drop(directory, NAME, limit_bytes=100)


def test_a_file_that_is_gone_is_no_error(directory: int) -> None:
    assert open_drop(directory, NAME, limit_bytes=LIMIT_BYTES) is None
