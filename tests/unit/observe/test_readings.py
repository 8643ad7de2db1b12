"""What processes were reading when they died: counted, set aside at the third death, told."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from relaygw.errors import EndsReaders
from relaygw.observe import readings as module
from relaygw.observe.readings import ProcessReadings, Reader, Readings, unwatched

DROP = "maildrop file 1234"
OTHER = "content of 99 bytes, CRC 0000abcd"


class Told(Readings):
    """A file that keeps what it tells."""

    def __init__(self, directory: Path) -> None:
        self.lines: list[str] = []
        super().__init__(directory, tell=self.lines.append)

    def told(self) -> list[str]:
        lines, self.lines[:] = list(self.lines), []
        return lines


@pytest.fixture
def readings(tmp_path: Path) -> Told:
    readings = Told(tmp_path)
    assert readings.told() == []
    return readings


def die_unnoticed(readings: Readings, *whats: str, process: int = 0) -> None:
    """Let a process die that reads things in as many threads."""
    if not (pid := os.fork()):
        slots = readings.of(process)
        begun = [slots.reading(*one) for one in zip(Reader, whats, strict=False)]
        for one in begun:
            one.__enter__()
        os._exit(1)
    os.waitpid(pid, 0)


def die(readings: Told, *whats: str, process: int = 0) -> list[str]:
    """Let a process die that reads things in as many threads; return what is told of it."""
    die_unnoticed(readings, *whats, process=process)
    readings.end(process, "front (pid 11)")
    return readings.told()


def read(slots: ProcessReadings, what: str, reader: Reader = Reader.SESSIONS) -> None:
    with slots.reading(reader, what):
        pass


def test_what_ends_three_processes_is_set_aside(readings: Told) -> None:
    told = [line for number in range(3) for line in die(readings, DROP, process=number)]
    who = f"front (pid 11) ended while it read {DROP}"
    assert told == [
        f"warning: {who} (1 of 3 times until that is set aside)",
        f"warning: {who} (2 of 3 times until that is set aside)",
        f"error: {who}, 3 times by now: it is set aside, and not read again",
    ]
    for process in (0, 5, 999):
        slots = readings.of(process)
        if process < 999:
            with pytest.raises(EndsReaders, match=f"{DROP}: reading it ended a process 3 times"):
                read(slots, DROP)
        read(slots, OTHER)  # other mail goes on
    assert die(readings) == []


def test_who_ends_as_told_is_not_counted(readings: Told) -> None:
    die_unnoticed(readings, DROP)
    readings.end(0, "front (pid 11)", has_died=False)
    assert readings.told() == []
    assert die(readings) == []  # idle


def test_what_was_read_to_its_end_is_counted_no_longer(readings: Told) -> None:
    for _ in range(4):
        assert len(die(readings, DROP)) == 1
        read(readings.of(0), DROP)
        readings.settle()
        assert readings.state == module.CLEAR


def test_what_is_read_in_two_steps_is_counted_until_the_last(readings: Told) -> None:
    for number in (1, 2):
        with readings.of(0).reading(Reader.MAILDROP, DROP, is_last=False):
            pass
        assert f"{number} of 3" in die(readings, DROP)[0]


def test_an_error_is_no_death(readings: Told) -> None:
    die(readings, DROP)
    with pytest.raises(ZeroDivisionError), readings.of(0).reading(Reader.INDEX, DROP):
        raise ZeroDivisionError
    assert die(readings) == []
    assert "1 of 3" in die(readings, DROP)[0]


def test_a_gateway_that_is_killed_whole_leaves_it_to_the_next(tmp_path: Path) -> None:
    for number in (1, 2):
        readings = Told(tmp_path)
        told = readings.told()
        assert len(told) == number - 1
        assert all(f"a process ended while it read {DROP} (" in line for line in told)
        die_unnoticed(readings, DROP, process=3)
        _let_go(readings)
    readings = Told(tmp_path)
    (line,) = readings.told()
    assert "2 of 3" in line
    (line,) = die(readings, DROP)
    assert line.startswith("error: ")
    _let_go(readings)
    after = Told(tmp_path)
    assert after.told() == []
    with pytest.raises(EndsReaders):
        read(after.of(0), DROP)


def _let_go(readings: Told) -> None:
    """Close the file as the end of a process does, which ends its lock as well."""
    readings._memory.close()


def test_another_version_reads_it_again(tmp_path: Path) -> None:
    readings = Told(tmp_path)
    for _ in range(3):
        die(readings, DROP)
    die_unnoticed(readings, OTHER, process=3)
    _let_go(readings)
    with (tmp_path / "reading").open("r+b") as file:
        file.write(b"relaygw 99.0 reading\n")
    later = Told(tmp_path)
    assert later.told() == []
    read(later.of(0), DROP)


def test_a_suspicion_ends_after_a_day(readings: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    die(readings, DROP)
    for _ in range(3):
        die(readings, OTHER)
    now_s = module.time.time() + 2 * 86_400
    monkeypatch.setattr(module.time, "time", lambda: now_s)
    readings.settle()
    assert readings.state == module.SET_ASIDE
    assert "1 of 3" in die(readings, DROP)[0]
    with pytest.raises(EndsReaders):  # what is set aside stays so
        read(readings.of(0), OTHER)


def test_the_innocent_beside_it_is_not_set_aside(readings: Told) -> None:
    """After a first death nobody knows which of several it was: then they are read in turns."""
    assert len(die(readings, DROP, OTHER)) == 2
    slots = readings.of(0)
    entered = threading.Event()

    def read_beside() -> None:
        with slots.reading(Reader.MAILDROP, OTHER):
            entered.set()

    with slots.reading(Reader.SESSIONS, DROP):
        assert slots._turn.locked()
        thread = threading.Thread(target=read_beside)
        thread.start()
    thread.join()
    assert entered.is_set()
    readings.settle()
    assert readings.state == module.CLEAR
    with slots.reading(Reader.SESSIONS, DROP):
        assert not slots._turn.locked()


def test_the_oldest_make_room(readings: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**9, 2 * 10**9))
    monkeypatch.setattr(module.time, "time", lambda: next(clock))
    for number in range(module.MAX_COUNTS + 5):
        die(readings, f"content {number}")
    assert "2 of 3" in die(readings, f"content {module.MAX_COUNTS + 4}")[0]
    assert "1 of 3" in die(readings, "content 0")[0]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda directory: (directory / "reading").mkdir(),
        lambda directory: (directory / "reading").symlink_to("/dev/null"),
        lambda directory: directory.rmdir(),
    ],
    ids=["a directory", "a link", "nothing"],
)
def test_without_a_file_it_lasts_as_long_as_the_supervisor(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    directory = tmp_path / "state"
    directory.mkdir()
    spoil(directory)
    readings = Told(directory)
    assert readings.told() == []
    assert "2 of 3" in [line for _ in range(2) for line in die(readings, DROP)][-1]


def test_a_second_gateway_of_a_state_directory_has_its_own(tmp_path: Path) -> None:
    """Locks are of processes: a child stands for it."""
    import multiprocessing

    first = Told(tmp_path)
    first.told()
    die(first, DROP)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert "1 of 3" in pool.apply(_second, (str(tmp_path),))[0]
    assert "2 of 3" in die(first, DROP)[0]


def _second(directory: str) -> list[str]:
    readings = Told(Path(directory))
    assert readings.told() == []
    return die(readings, DROP)


def test_names_of_any_length_and_letters() -> None:
    slots = unwatched()
    for what in ("x" * 1000, "caf\u00e9", "\0" * 5):
        read(slots, what)
