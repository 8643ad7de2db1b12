"""What is listed of the maildrop when somebody fills it."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.inbound import drop_directory
from relaygw.inbound.drop_directory import DropDirectory
from relaygw.mail import clock
from relaygw.mail.drop import WAKE_PIPE, WRITING_PREFIX
from tests.rights import needs


def test_files_that_stay_unfinished_keep_no_other_from_being_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drop_directory, "MAX_LISTED", 10)
    directory = DropDirectory(tmp_path / "maildrop", None)
    names = {f"{number:032x}.drop" for number in range(25)}
    for name in names:
        (directory.path / name).write_bytes(b"relaygw drop 1\n")
    seen: set[str] = set()
    for _ in range(3):
        listed = directory.look(skip=(), last=seen).drops
        assert len(listed) == 10
        seen.update(listed)
    assert seen == names
    skipping = directory.look(skip=seen)
    assert (skipping.drops, skipping.skipped) == ([], names)
    directory.close()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[DropDirectory]:
    directory = DropDirectory(tmp_path / "maildrop", None)
    directory.listen()
    os.utime(directory.path, (1e9, 1e9))
    directory.look(skip=())
    assert directory.is_unchanged()
    yield directory
    directory.close()


def test_what_comes_into_an_empty_maildrop_is_seen(empty: DropDirectory) -> None:
    begun = empty.path / f"{WRITING_PREFIX}{1:032x}"
    begun.write_bytes(b"relaygw drop 1\n")
    assert not empty.is_unchanged()
    empty.look(skip=())
    begun.rename(empty.path / f"{1:032x}.drop")
    assert not empty.is_unchanged()
    assert empty.look(skip=()).drops == [f"{1:032x}.drop"]


@pytest.mark.parametrize("name", [f"{1:032x}.drop", "odd", f"{WRITING_PREFIX}{1:032x}"])
def test_a_maildrop_in_which_anything_lies_is_looked_at(empty: DropDirectory, name: str) -> None:
    (empty.path / name).write_bytes(b"")
    os.utime(empty.path, (1e9, 1e9))
    empty.look(skip={name})
    assert not empty.is_unchanged()


def test_a_change_within_the_tick_of_another_is_looked_for(
    empty: DropDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "_TICK_NS", 10**15)  # however slow this is
    os.utime(empty.path)
    empty.look(skip=())
    assert not empty.is_unchanged()


def test_who_says_that_mail_came_is_believed(empty: DropDirectory) -> None:
    pipe = os.open(empty.path / WAKE_PIPE, os.O_WRONLY | os.O_NONBLOCK)
    os.write(pipe, b"\0" * 70_000)
    os.close(pipe)
    empty.drain()
    assert not empty.is_unchanged()


def test_the_time_of_a_directory_is_not_believed_for_ever(
    empty: DropDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    later_s = drop_directory.time.monotonic() + 30
    monkeypatch.setattr(drop_directory.time, "monotonic", lambda: later_s)
    assert not empty.is_unchanged()


@needs("root")
@pytest.mark.parametrize("group", [None, "mail"])
def test_root_leaves_the_directory_to_a_group_that_its_owner_reads_by(
    tmp_path: Path, group: str | None
) -> None:
    """A file that is left has the group of the directory."""
    user = pwd.getpwnam("nobody")
    path = tmp_path / "maildrop"
    DropDirectory(path, group, owner=user.pw_uid).close()
    gid = user.pw_gid if group is None else grp.getgrnam(group).gr_gid
    assert (path.stat().st_uid, path.stat().st_gid) == (user.pw_uid, gid)
    DropDirectory(path, None, owner=user.pw_uid).close()  # the setting is gone
    assert path.stat().st_gid == user.pw_gid


@needs("root")
def test_the_gateway_mends_the_group_of_its_directory(tmp_path: Path) -> None:
    path = tmp_path / "maildrop"
    path.mkdir()
    other = next(gid for gid in range(1, 1000) if gid not in os.getgroups())
    os.chown(path, -1, other)
    DropDirectory(path, None).close()
    assert path.stat().st_gid == os.getegid()
