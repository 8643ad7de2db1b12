"""Which processes hang, by what their supervisor sees, and what it leaves for others to read."""

from __future__ import annotations

from pathlib import Path

from relaygw.observe.hang import HangFile, read_hangs
from relaygw.roles.children import HUNG_S, Child, HangWatch


class Watched:
    """A watch of two processes, and its clock."""

    def __init__(self, directory: Path, *, after_s: float = float("inf")) -> None:
        self.told: list[str] = []
        self.directory = directory
        self.file = HangFile(directory)
        self.watch = HangWatch(after_s=after_s, tell=self.told.append, file=self.file)
        self.front = Child("front", 11, 1, 0.0, slot=0)
        self.delivery = Child("delivery", 12, 1, 0.0, slot=1)
        self.now_s = 1e6
        self.watch.look([], self.now_s)

    def beat(self, *children: Child) -> None:
        for child in children:
            self.watch.beat_of(child.slot).note(self.now_s)

    def look(self, after_s: float | None = None) -> list[str]:
        """Look once more; return the roles that have hung for too long."""
        self.now_s += self.watch.each_s if after_s is None else after_s
        return [one.role for one in self.watch.look([self.front, self.delivery], self.now_s)]

    def hangs(self) -> list[tuple[str, int, bool, bool]]:
        found = read_hangs(self.directory)
        return [(one.role, one.pid, one.ended_ms is None, one.is_back) for one in found]


def test_who_stands_still_is_told_once_and_is_overdue_in_the_end(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    assert watched.watch.each_s >= 5, "an idle gateway sleeps"
    watched.beat(watched.front, watched.delivery)
    overdue: list[str] = []
    while not overdue:
        watched.beat(watched.front)
        overdue = watched.look()
    assert overdue == ["delivery"]
    assert watched.told == ["error: delivery (pid 12) has hung for 45 s"]
    assert watched.delivery.silent_s == 3 * HUNG_S
    assert watched.hangs() == [("delivery", 12, True, False)]
    (hang,) = read_hangs(tmp_path)
    watched.watch.forget(watched.front)  # which has nothing to do with it
    watched.watch.forget(watched.delivery)
    assert watched.hangs() == [("delivery", 12, False, False)]
    assert read_hangs(tmp_path)[0].since_ms == hang.since_ms


def test_who_goes_on_is_told_and_may_hang_again(tmp_path: Path) -> None:
    watched = Watched(tmp_path, after_s=3.0)
    watched.beat(watched.front, watched.delivery)
    watched.look()
    for _ in range(3):
        watched.beat(watched.delivery)
        watched.look()
    watched.beat(watched.front)
    watched.look()
    assert watched.told == [
        "error: front (pid 11) has hung for 3 s",
        "front (pid 11) goes on after it hung",
    ]
    assert watched.hangs() == [("front", 11, False, True)]
    for _ in range(4):
        watched.look()
    assert watched.hangs()[1:] == [("delivery", 12, True, False), ("front", 11, True, False)]


def test_a_process_that_has_not_begun_does_not_hang(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    for _ in range(20):
        assert watched.look() == []
    assert watched.told == []


def test_all_that_were_stopped_together_get_their_turn(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.beat(watched.front, watched.delivery)
    watched.look()
    assert watched.look(after_s=3600) == []
    assert watched.told == [], "nobody looked meanwhile"
    watched.beat(watched.front, watched.delivery)
    watched.look()
    assert watched.front.silent_s == 0


def test_what_hung_when_its_supervisor_ended_is_gone_with_it(tmp_path: Path) -> None:
    file = HangFile(tmp_path)
    file.start()
    assert read_hangs(tmp_path) == []
    file.begin("delivery", 12, for_s=45)
    HangFile(tmp_path).start()
    (hang,) = read_hangs(tmp_path)
    assert (hang.pid, hang.is_back) == (12, False)
    assert hang.ended_ms is not None
    assert hang.ended_ms - hang.since_ms >= 45_000


def test_a_file_that_cannot_be_read_or_written_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "hung").write_text('[{"role": 1, "colour": 2}]')
    assert read_hangs(tmp_path) == []
    (tmp_path / "hung").write_text("no JSON")
    assert read_hangs(tmp_path) == []
    HangFile(tmp_path / "nowhere").begin("front", 1, for_s=1)
