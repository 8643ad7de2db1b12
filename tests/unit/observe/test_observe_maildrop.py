"""What is told of the maildrop: what waits, what is late, what is left alone and why."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from relaygw.observe.maildrop import MAX_REASONS, LeftMail, ReasonsFile, look_at_maildrop
from tests.rights import needs

NAMES = [f"{number:032x}.drop" for number in range(5)]


def look(path: Path, *, later_s: float = 0.0) -> LeftMail:
    found = look_at_maildrop(str(path), now_s=time.time() + later_s)
    assert found is not None
    return found


def leave(path: Path, *names: str) -> None:
    for name in names:
        (path / name).write_bytes(b"")


def write_reasons(path: Path, reasons: dict[str, str]) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    ReasonsFile(directory).write(reasons)
    os.close(directory)


def test_an_empty_one_and_one_that_is_not_there_have_nothing(tmp_path: Path) -> None:
    leave(tmp_path, "wake", "queue", "reasons", ".w-" + "0" * 32)
    for path in (tmp_path, tmp_path / "missing"):
        found = look(path, later_s=1000)
        assert found == LeftMail(path=str(path))
        assert found.summary is None
    assert look_at_maildrop(None) is None


def test_mail_that_waits_is_trouble_after_a_minute(tmp_path: Path) -> None:
    leave(tmp_path, *NAMES)
    assert (look(tmp_path).waiting, look(tmp_path).summary) == (5, None)
    late = look(tmp_path, later_s=61)
    assert (late.waiting, late.late, late.aside) == (5, 5, 0)
    assert late.oldest_age_s > 60
    assert len(late.named) == 3
    assert late.summary is not None and late.summary.endswith(", …")
    assert "5 waiting for more than a minute" in late.summary


def test_a_time_that_its_owner_sets_makes_no_file_young(tmp_path: Path) -> None:
    leave(tmp_path, NAMES[0])
    os.utime(tmp_path / NAMES[0], (2**33, 2**33))
    assert look(tmp_path, later_s=61).late == 1


def test_files_set_aside_are_told_with_their_reason(tmp_path: Path) -> None:
    leave(tmp_path, *NAMES[:3])
    os.mkfifo(tmp_path / "odd\udcff\n.drop")
    write_reasons(tmp_path, {NAMES[0]: "damaged: its end is missing", NAMES[4]: "it is gone"})
    found = look(tmp_path)
    assert (found.waiting, found.late, found.aside) == (2, 0, 2)
    told = {one.name: one.reason for one in found.named}
    assert told == {
        NAMES[0]: "damaged: its end is missing",
        "odd\\udcff\\n.drop": "not a mail file name",
    }
    assert found.summary is not None and found.summary.isprintable()


@needs("root")
def test_reasons_of_somebody_else_are_not_believed(tmp_path: Path) -> None:
    leave(tmp_path, NAMES[0])
    write_reasons(tmp_path, {NAMES[0]: "all is well"})
    assert look(tmp_path).aside == 1
    os.chown(tmp_path / "reasons", 12345, 12345)
    assert (look(tmp_path).aside, look(tmp_path).waiting) == (0, 1)


@pytest.mark.parametrize("data", [b"", b"[1]", b"{", b"\xff", b'{"a": '])
def test_reasons_that_cannot_be_read_are_none(tmp_path: Path, data: bytes) -> None:
    leave(tmp_path, NAMES[0])
    (tmp_path / "reasons").write_bytes(data)
    assert look(tmp_path).waiting == 1
    (tmp_path / "reasons").unlink()
    os.mkfifo(tmp_path / "reasons")
    assert look(tmp_path).waiting == 1


def test_many_reasons_are_cut_to_the_newest(tmp_path: Path) -> None:
    names = [f"{number:032x}.drop" for number in range(MAX_REASONS + 3)]
    write_reasons(tmp_path, dict.fromkeys(names, "x" * 1000))
    kept = json.loads((tmp_path / "reasons").read_bytes())
    assert set(kept) == set(names[3:])
    assert {len(reason) for reason in kept.values()} == {300}
    assert (tmp_path / "reasons").stat().st_mode & 0o777 == 0o600


def test_one_that_cannot_be_listed_is_trouble(tmp_path: Path) -> None:
    leave(tmp_path, "file")
    found = look(tmp_path / "file")
    assert found.trouble == "Not a directory"
    assert found.summary is not None and "cannot be read: Not a directory" in found.summary
