"""What is left of a volume, and whether mail may still come."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from relaygw import volume
from relaygw.inbound.content import MEMORY_BYTES, ReceivedContent
from relaygw.mail.drop import LEAST_FREE_BYTES
from relaygw.volume import NoRoom, Room, free_share, is_private_temporary

MB = 2**20


def of_megabytes(monkeypatch: pytest.MonkeyPatch, *, free: int, whole: int) -> None:
    found = SimpleNamespace(f_bavail=free, f_blocks=whole, f_frsize=MB)
    monkeypatch.setattr(volume.os, "statvfs", lambda _: found)


def room_in(directory: Path, *, is_queue_elsewhere: bool = False) -> Room:
    return Room(directory, least_share=0.05, is_queue_elsewhere=is_queue_elsewhere)


def test_the_share_that_is_free(tmp_path: Path) -> None:
    told = shutil.disk_usage(tmp_path)
    assert free_share(tmp_path) == pytest.approx(told.free / told.total, abs=0.01)


def test_a_filesystem_that_does_not_tell_its_size_is_not_full(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    of_megabytes(monkeypatch, free=0, whole=0)
    assert free_share(tmp_path) == 1.0
    room_in(tmp_path).reserve(ReceivedContent(tmp_path), MB)


def test_large_content_leaves_room_for_itself_in_the_database_and_for_what_is_small(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    of_megabytes(monkeypatch, free=600, whole=10_000)  # 500 have to stay
    room, owner = room_in(tmp_path), ReceivedContent(tmp_path)
    room.reserve(owner, 33 * MB)
    of_megabytes(monkeypatch, free=567, whole=10_000)  # it lies in its file now
    with pytest.raises(NoRoom):
        room.reserve(ReceivedContent(tmp_path), 1 * MB)
    assert room.is_left(), "one that is refused is no reason to refuse others"
    room.release(owner)
    room.reserve(owner, 22 * MB)
    of_megabytes(monkeypatch, free=499, whole=10_000)
    assert not room_in(tmp_path).is_left()


def test_what_is_taken_between_two_looks_counts_and_once_more_while_it_may_be_in_the_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now_s = 1000.0
    monkeypatch.setattr(volume, "time", SimpleNamespace(monotonic=lambda: now_s))
    of_megabytes(monkeypatch, free=520, whole=10_000)
    room, elsewhere = room_in(tmp_path), room_in(tmp_path, is_queue_elsewhere=True)
    for one in (room, elsewhere):
        assert one.is_left()
        one.take(11 * MB)
    assert not room.is_left()
    assert elsewhere.is_left()
    now_s += 1
    assert not room.is_left(), "the log may have it still"
    now_s += 1
    assert room.is_left()
    room.take(11 * MB)
    now_s += volume.MOVED_S
    assert room.is_left()


def test_what_is_gone_keeps_no_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    of_megabytes(monkeypatch, free=600, whole=10_000)
    room, content = room_in(tmp_path), ReceivedContent(tmp_path)
    room.reserve(content, 33 * MB)
    del content
    gc.collect()
    room.reserve(ReceivedContent(tmp_path), 33 * MB)


@pytest.mark.parametrize(("whole", "least"), [(1000, LEAST_FREE_BYTES // MB), (200, 50)])
def test_the_database_of_a_small_volume_can_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, whole: int, least: int
) -> None:
    content = ReceivedContent(tmp_path)
    of_megabytes(monkeypatch, free=least + 3, whole=whole)
    room_in(tmp_path).reserve(content, MB)
    of_megabytes(monkeypatch, free=least + 2, whole=whole)
    with pytest.raises(NoRoom):
        room_in(tmp_path).reserve(content, MB)


def test_a_database_server_has_its_own_volume(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    of_megabytes(monkeypatch, free=20, whole=200)
    room, content = room_in(tmp_path, is_queue_elsewhere=True), ReceivedContent(tmp_path)
    room.reserve(content, 10 * MB)
    with pytest.raises(NoRoom):
        room.reserve(content, 11 * MB)


def test_content_reserves_what_it_keeps_in_its_file_until_it_is_closed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    of_megabytes(monkeypatch, free=506, whole=10_000)  # six, and 2 MiB with their copies are six
    room, other = room_in(tmp_path), ReceivedContent(tmp_path)
    content = ReceivedContent(tmp_path, room)
    content.add(b"x" * MEMORY_BYTES)
    content.add(b"x" * MB)
    with pytest.raises(NoRoom):
        content.add(b"x" * MB)
    with pytest.raises(NoRoom):
        room.reserve(other, MB)
    content.close()
    room.reserve(other, 2 * MB)


_PRIVATE = (
    "305 293 254:0 /tmp/systemd-private-6ee0-relaygw.service-O0nhwa/tmp /tmp rw - ext4 a rw\n"
    "306 293 0:41 /systemd-private-6ee0-relaygw.service-ueLWSK/tmp /var/tmp rw - tmpfs tmpfs rw\n"
)


@pytest.mark.parametrize(
    ("path", "mounts", "is_emptied"),
    [
        ("/tmp/q", _PRIVATE, True),
        ("/var/tmp", _PRIVATE, True),
        ("/var/lib/relaygw", _PRIVATE, False),
        ("/tmp/q", "31 24 0:28 / /tmp rw,nosuid - tmpfs tmpfs rw\n", False),
        ("/tmp/q", None, False),
    ],
)
def test_what_systemd_empties_is_known(path: str, mounts: str | None, is_emptied: bool) -> None:
    assert is_private_temporary(Path(path), mounts) == is_emptied
