"""Counts of several processes: added up while they live and after, and gone with a restart."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.observe import metrics
from relaygw.observe.metrics import RunFiles, exposition, files_to_read, metrics_root
from tests.unit.observe.counting_process import counting
from tests.unit.observe.scraped import Scraped, scraped

KINDS = ["counter", "gauge_max", "histogram"]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFiles]:
    made = RunFiles(tmp_path)
    yield made
    made.close()


def scrape(state_dir: Path) -> Scraped:
    return scraped(exposition(state_dir, [], accept="")[0])


def names(run: RunFiles) -> list[str]:
    return sorted(path.name for path in run.directory.glob("*.db"))


def test_processes_add_up_and_what_an_ended_one_counted_stays(
    tmp_path: Path, run: RunFiles
) -> None:
    first = "total.labels('a').inc(3); took.observe(2); now.set(5); last.set(1000)"
    second = "total.labels('a').inc(4); took.observe(9); now.set(7); last.set(900)"
    with counting(run.directory, first) as dead, counting(run.directory, second):
        both = scrape(tmp_path)
        assert both("things_total", kind="a") == 7
        assert both("took_seconds_bucket", le="1.0") == 0
        assert both("took_seconds_bucket", le="5.0") == 1
        assert both("took_seconds_bucket", le="+Inf") == 2
        assert both("took_seconds_sum") == 11
        assert both("now") == 12
        assert both("last_seconds") == 1000
        run.end(dead)

        one = scrape(tmp_path)
        assert one("now") == 7  # what holds only while a process runs
        assert {name: number for name, number in one.numbers.items() if name != "now[]"} == {
            name: number for name, number in both.numbers.items() if name != "now[]"
        }
        assert [name for name in names(run) if f"_{dead}." in name] == []


def test_many_ended_processes_leave_three_files(tmp_path: Path, run: RunFiles) -> None:
    for number in range(5):
        with counting(run.directory, f"total.labels('a').inc(); last.set({number})") as pid:
            pass
        run.end(pid)
    assert names(run) == [f"{kind}_0.db" for kind in KINDS]
    assert scrape(tmp_path)("things_total", kind="a") == 5
    assert scrape(tmp_path)("last_seconds") == 4


@pytest.mark.parametrize("left", [b"", b"\xff" * 64], ids=["empty", "damaged"])
def test_what_a_killed_process_left_of_a_file_ends_nothing(
    tmp_path: Path, run: RunFiles, left: bytes
) -> None:
    with counting(run.directory, "total.labels('a').inc()") as counted:
        pass
    (run.directory / "counter_4711.db").write_bytes(left)
    (run.directory / "histogram_4711.unfinished").touch()
    run.end(4711)
    run.end(counted)
    assert [path.name for path in run.directory.iterdir() if "4711" in path.name] == []
    assert scrape(tmp_path)("things_total", kind="a") == 1


def test_a_file_has_its_name_once_it_is_whole(
    run: RunFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    unnamed = []

    def take_room(descriptor: int, offset: int, size_bytes: int) -> None:
        unnamed.append(names(run))
        os.truncate(descriptor, offset + size_bytes)

    monkeypatch.setattr(os, "posix_fallocate", take_room)
    monkeypatch.setattr(metrics, "_ROOM_BYTES", {"counter": 4096})
    monkeypatch.setattr(metrics.values, "MultiProcessValue", lambda: metrics.values.ValueClass)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    metrics.count_in(run.directory)
    assert unnamed == [[]]
    assert names(run) == [f"counter_{os.getpid()}.db"]


def test_an_end_never_waits_for_a_reader_and_is_made_good(tmp_path: Path, run: RunFiles) -> None:
    with counting(run.directory, "total.labels('a').inc(); now.set(1)") as first:
        pass
    with counting(run.directory, "total.labels('a').inc()") as second:
        pass
    with files_to_read(tmp_path) as paths:
        run.end(first)
        gone = [Path(path).name for path in paths if not Path(path).exists()]
        assert gone == [f"gauge_livesum_{first}.db"]  # which readers expect
    run.end(second)
    assert names(run) == [f"{kind}_0.db" for kind in KINDS]
    assert scrape(tmp_path)("things_total", kind="a") == 2


def test_a_dead_supervisors_counts_are_not_read_and_go_with_the_next_start(tmp_path: Path) -> None:
    old = RunFiles(tmp_path)
    with counting(old.directory, "total.labels('a').inc()"):
        pass
    assert scrape(tmp_path)("things_total", kind="a") == 1
    old.close()
    assert scrape(tmp_path).numbers == {}
    new = RunFiles(tmp_path)
    assert list(metrics_root(tmp_path).iterdir()) == [new.directory]
    new.close()


def test_two_supervisors_of_one_state_directory_are_one_scrape(
    tmp_path: Path, run: RunFiles
) -> None:
    with counting(run.directory, "total.labels('a').inc()"):
        other = RunFiles(tmp_path)
        with counting(other.directory, "total.labels('a').inc()"):
            assert scrape(tmp_path)("things_total", kind="a") == 2
        other.close()


def test_nothing_counted_is_an_answer_too(tmp_path: Path) -> None:
    assert scrape(tmp_path).numbers == {}
    assert list(tmp_path.iterdir()) == []
