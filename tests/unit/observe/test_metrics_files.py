"""Counts of several processes: added up while they live and after, and gone with a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.observe.metrics.exposition import exposition
from relaygw.observe.metrics.files import RunFiles, files_to_read, metrics_root
from tests.unit.observe.counting_process import counting
from tests.unit.observe.scraped import Scraped, scraped

KINDS = ["counter", "gauge_max", "histogram"]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFiles]:
    files = RunFiles(tmp_path)
    yield files
    files.close()


def scrape(state_dir: Path) -> Scraped:
    return scraped(exposition(state_dir, [], accept="")[0])


def names(files: RunFiles) -> list[str]:
    return sorted(path.name for path in files.directory.glob("*.db"))


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
