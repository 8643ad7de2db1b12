"""What is listed of the maildrop when somebody fills it."""

from __future__ import annotations

from pathlib import Path

import pytest

from relaygw.inbound import drop_directory
from relaygw.inbound.drop_directory import DropDirectory


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
