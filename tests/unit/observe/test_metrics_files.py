"""Counts of several processes: added up while they live and after, and gone with a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.observe.exposition import exposition
from relaygw.observe.metrics import RunFiles, files_to_read, metrics_root
from tests.unit.observe.counting_process import counting
from tests.unit.observe.scraped import Scraped, scraped


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFiles]:
    made = RunFiles(tmp_path)
    yield made
    made.close()


def scrape(state_dir: Path) -> Scraped:
    return scraped(exposition(state_dir, [], accept="")[0])


def names(run: RunFiles) -> list[str]:
    return sorted(path.name for path in run.directory.glob("*.json"))


def test_processes_add_up_and_what_an_ended_one_counted_stays(
    tmp_path: Path, run: RunFiles
) -> None:
    first = "total.add('a', count=3); took.add(2); now.set_number(5); last.set_number(1000)"
    second = "total.add('a', count=4); took.add(9); now.set_number(7); last.set_number(900)"
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
        assert f"{dead}.json" not in names(run)


def test_many_ended_processes_leave_one_file(tmp_path: Path, run: RunFiles) -> None:
    for number in range(5):
        with counting(run.directory, f"total.add('a'); last.set_number({number})") as pid:
            pass
        run.end(pid)
    assert names(run) == ["ended.json"]
    assert scrape(tmp_path)("things_total", kind="a") == 5
    assert scrape(tmp_path)("last_seconds") == 4


DAMAGED = {
    "empty": b"",
    "bytes": b"\xff" * 64,
    "shape": b"[4]",
    "row": b'[["a", "b", "c", 1, [], []]]',
}


@pytest.mark.parametrize("left", DAMAGED.values(), ids=list(DAMAGED))
def test_what_a_killed_process_left_of_a_file_ends_nothing(
    tmp_path: Path, run: RunFiles, left: bytes
) -> None:
    with counting(run.directory, "total.add('a')") as counted:
        pass
    (run.directory / "4711.json").write_bytes(left)
    (run.directory / "4711.unfinished").touch()
    run.end(4711)
    run.end(counted)
    assert [path.name for path in run.directory.iterdir() if "4711" in path.name] == []
    assert scrape(tmp_path)("things_total", kind="a") == 1


def test_metrics_of_two_versions_that_differ_are_not_mixed(tmp_path: Path, run: RunFiles) -> None:
    other = "file.tally('other_total', 'Other.', 'LABEL').add('a')"
    with (
        counting(run.directory, other.replace("LABEL", "before")),
        counting(run.directory, other.replace("LABEL", "after")),
    ):
        assert sum(name.startswith("other_total") for name in scrape(tmp_path).numbers) == 1


def test_an_end_never_waits_for_a_reader_and_is_made_good(tmp_path: Path, run: RunFiles) -> None:
    with counting(run.directory, "total.add('a'); now.set_number(1)") as first:
        pass
    with counting(run.directory, "total.add('a')") as second:
        pass
    with files_to_read(tmp_path) as paths:
        run.end(first)
        assert [path.exists() for path in paths] == [True, True]
    run.end(second)
    assert names(run) == ["ended.json"]
    assert scrape(tmp_path)("things_total", kind="a") == 2


def test_a_dead_supervisors_counts_are_not_read_and_go_with_the_next_start(tmp_path: Path) -> None:
    old = RunFiles(tmp_path)
    with counting(old.directory, "total.add('a')"):
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
    with counting(run.directory, "total.add('a')"):
        other = RunFiles(tmp_path)
        with counting(other.directory, "total.add('a')"):
            assert scrape(tmp_path)("things_total", kind="a") == 2
        other.close()


def test_nothing_counted_is_an_answer_too(tmp_path: Path) -> None:
    assert scrape(tmp_path).numbers == {}
    assert list(tmp_path.iterdir()) == []
