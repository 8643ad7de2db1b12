"""What is left of a volume, and whether mail may still come."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from relaygw import volume
from relaygw.volume import Room, free_share


def of_blocks(monkeypatch: pytest.MonkeyPatch, *, free: int, all_of_them: int) -> None:
    found = SimpleNamespace(f_bavail=free, f_blocks=all_of_them, f_frsize=4096)
    monkeypatch.setattr(volume.os, "statvfs", lambda _: found)


def test_the_share_that_is_free(tmp_path: Path) -> None:
    told = shutil.disk_usage(tmp_path)
    assert free_share(tmp_path) == pytest.approx(told.free / told.total, abs=0.01)
    fewer = free_share(tmp_path, coming_bytes=told.total // 2)
    assert fewer == pytest.approx(free_share(tmp_path) - 0.5, abs=0.01)


def test_a_filesystem_that_does_not_tell_its_size_is_not_full(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    of_blocks(monkeypatch, free=0, all_of_them=0)
    assert free_share(tmp_path) == 1.0


def test_large_content_that_would_fill_it_has_no_room_and_what_is_small_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    of_blocks(monkeypatch, free=600, all_of_them=10_000)
    room = Room(tmp_path, least_share=0.05, is_queue_elsewhere=False)
    elsewhere = Room(tmp_path, least_share=0.05, is_queue_elsewhere=True)
    assert room.is_left_for(100 * 4096)
    assert not room.is_left_for(101 * 4096)
    assert room.is_left(), "one that is refused is no reason to refuse others"
    assert elsewhere.is_left_for(101 * 4096), "a database server has its own volume"
    of_blocks(monkeypatch, free=499, all_of_them=10_000)
    assert not elsewhere.is_left_for(1)
    assert not Room(tmp_path, least_share=0.05, is_queue_elsewhere=False).is_left()
