"""Guesses at a name: the more, the slower, and never for ever; on a clock that the test moves."""

from __future__ import annotations

import pytest

from relaygw.web.gate import credentials
from relaygw.web.gate.credentials import FREE_FAILURES, MAX_DELAY_S, MAX_NAMES, WITHIN_S, NameDelays
from tests.builders import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(credentials, "time", clock)
    return clock


def test_delays_grow_to_a_bound_and_end(clock: Clock) -> None:
    delays = NameDelays()
    seen = []
    for _ in range(1000):
        seen.append(delays.delay_s("admin"))
        delays.count_failure("admin")
    assert seen[:FREE_FAILURES] == [0.0] * FREE_FAILURES
    assert seen[FREE_FAILURES : FREE_FAILURES + 4] == [0.5, 1.0, 2.0, 4.0]
    assert seen == sorted(seen)
    assert seen[-1] == MAX_DELAY_S
    assert delays.delay_s("anna") == 0.0
    clock.now_s += WITHIN_S
    assert delays.delay_s("admin") == 0.0


def test_the_table_does_not_grow_for_ever(clock: Clock) -> None:
    delays = NameDelays()
    for _ in range(1000):
        delays.count_failure("first")
    for number in range(MAX_NAMES + 3):
        delays.count_failure(str(number))
        delays.count_failure("admin")
    assert (delays.delay_s("first"), delays.delay_s("admin")) == (0.0, MAX_DELAY_S)
