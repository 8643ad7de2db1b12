"""Reading many files: what is wrong with one is that one's, only trouble of the machine ends it."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relaygw.inbound import drop_file
from relaygw.inbound.drop_file import DropBatch, DropReader
from tests.unit.inbound.test_drop_file import drop_bytes

BAD, GOOD = "a" * 32 + ".drop", "b" * 32 + ".drop"
MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
CALLS = ("open", "fstat", "pread", "read")


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    for name in (BAD, GOOD):
        (tmp_path / name).write_bytes(drop_bytes(b"Subject: x\n\nhello\n"))
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def look(directory: int, spool_directory: Path) -> DropBatch:
    names = deque([BAD, GOOD])
    reader = DropReader(directory, limit_bytes=10_000, spool_directory=spool_directory)
    batch = reader.read_batch(names)
    for drop in batch.drops:
        drop.content.close()
    return batch


def failing_once(call: Callable[..., Any], number: int) -> Callable[..., Any]:
    """Return a system call that fails the first time, which is about the first file."""
    errors = [OSError(number, os.strerror(number))]

    def instead(*args: Any, **more: Any) -> Any:
        if errors:
            raise errors.pop()
        return call(*args, **more)

    return instead


@pytest.mark.parametrize("call", CALLS)
def test_an_error_over_one_file_is_that_files_and_one_of_the_machine_stops_the_batch(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    for number in sorted(errno.errorcode):
        with monkeypatch.context() as patch:
            patch.setattr(drop_file.os, call, failing_once(getattr(os, call), number))
            batch = look(directory, tmp_path)
        blamed = [name for name, _ in (*batch.unfit, *batch.broken)]
        taken = [drop.name for drop in batch.drops]
        what = errno.errorcode[number]
        if number in MACHINE:
            assert (batch.trouble is not None, blamed, taken) == (True, [], []), what
        elif (call, number) == ("open", errno.ENOENT):  # it is gone, as files are that were taken
            assert (batch.trouble, blamed, taken) == (None, [], [GOOD]), what
        else:
            assert (batch.trouble, blamed, taken) == (None, [BAD], [GOOD]), what


def test_a_spool_that_cannot_be_written_is_trouble_of_the_machine(
    directory: int, tmp_path: Path
) -> None:
    (tmp_path / BAD).write_bytes(drop_bytes(b"x" * 2**21))
    names = deque([BAD])
    batch = DropReader(directory, limit_bytes=2**22, spool_directory=tmp_path).read_batch(names)
    assert batch.large == [BAD]
    missing = tmp_path / "missing"
    batch = DropReader(directory, limit_bytes=2**22, spool_directory=missing).read_large(BAD)
    assert isinstance(batch.trouble, FileNotFoundError)
    assert (batch.unfit, batch.broken) == ([], [])
