"""What counts as a step of the clock, and what does not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from relaygw.delivery.worker import EACH_S, STEP_S, UNSURE_S, ClockWatch

AT_MS = 1_795_600_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return the clock of the queue and the one that nobody sets."""
    clock = SimpleNamespace(at_s=0.0, awake_s=1000.0, takes_s=0.0)
    monkeypatch.setattr("relaygw.delivery.worker.awake_s", lambda: clock.awake_s)
    monkeypatch.setattr("relaygw.delivery.worker.time.monotonic", lambda: clock.awake_s)

    def read_ms() -> int:
        clock.awake_s += clock.takes_s
        clock.at_s += clock.takes_s
        return AT_MS + int(clock.at_s * 1000)

    clock.read_ms = read_ms
    return clock


def pass_by(clock: SimpleNamespace, seconds: float, *, clock_s: float | None = None) -> None:
    clock.awake_s += seconds
    clock.at_s += seconds if clock_s is None else clock_s


def test_a_clock_that_goes_is_not_set(clock: SimpleNamespace) -> None:
    watch = ClockWatch()
    for seconds, clock_s in ((1.0, 1.0), (600.0, 600.0), (1.0, 0.9), (1.0, STEP_S)):
        assert watch.look(clock.read_ms) is None
        pass_by(clock, seconds, clock_s=clock_s)
    assert watch.look(clock.read_ms) is None
    assert watch.last_step is None


def test_small_steps_add_up(clock: SimpleNamespace) -> None:
    watch = ClockWatch()
    watch.look(clock.read_ms)
    noticed = []
    for _ in range(4):
        pass_by(clock, 60.0, clock_s=57.0)
        noticed.append(watch.look(clock.read_ms))
    assert [round(step.by_s) if step else None for step in noticed] == [None, -6, None, -6]


def test_clocks_that_run_at_other_speeds_were_not_set(clock: SimpleNamespace) -> None:
    watch = ClockWatch()
    for _ in range(3 * 1440):  # three days, in which they part by 52 s
        pass_by(clock, 60.0, clock_s=60.0 * (1 + 2e-4))
        assert watch.look(clock.read_ms) is None


@pytest.mark.parametrize(
    ("by_s", "words"), [(-3600.0, "set back by 3600 s"), (7.0, "set forward by 7 s")]
)
def test_a_step_is_noticed_once(clock: SimpleNamespace, by_s: float, words: str) -> None:
    watch = ClockWatch()
    watch.look(clock.read_ms)
    pass_by(clock, 1.0, clock_s=1.0 + by_s)
    step = watch.look(clock.read_ms)
    assert step is not None
    assert step.by_s == pytest.approx(by_s)
    assert step.words == words
    pass_by(clock, 1.0)
    assert watch.look(clock.read_ms) is None
    assert watch.last_step == step


def test_a_look_that_was_interrupted_says_nothing(clock: SimpleNamespace) -> None:
    """As by a stop of the process: when the clock was read is not known."""
    watch = ClockWatch()
    watch.look(clock.read_ms)
    clock.takes_s = 60.0
    assert watch.look(clock.read_ms) is None
    clock.takes_s = 0.0
    assert watch.look(clock.read_ms) is None


def test_times_to_come_are_looked_for_often_after_a_start_and_after_a_step(
    clock: SimpleNamespace,
) -> None:
    watch = ClockWatch()

    def looks() -> int:
        count = 0
        for _ in range(180):
            count += watch.is_unsure()
            pass_by(clock, 1.0)
            watch.look(clock.read_ms)
        return count

    watch.look(clock.read_ms)
    assert looks() == UNSURE_S / EACH_S + 2
    assert looks() == 3  # a clock that is set and set back between two looks is not seen
    clock.at_s -= 3600
    watch.look(clock.read_ms)
    assert looks() == UNSURE_S / EACH_S + 2
