"""Rates of clients, on a clock that the test moves."""

from __future__ import annotations

import pytest

from relaygw.inbound import listeners
from relaygw.inbound.listeners import MAX_RATED, ClientRates
from relaygw.settings.section import Rate
from tests.builders import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(listeners, "time", clock)
    return clock


def test_a_rate_holds_over_any_stretch(clock: Clock) -> None:
    rates = ClientRates(Rate(60, 60.0))
    taken = 0
    for _ in range(3600):
        taken += rates.take("a")
        clock.now_s += 0.1
    assert taken == pytest.approx(60 + 360, abs=2)  # the burst and a minute's worth each minute


def test_each_client_has_its_own_rate(clock: Clock) -> None:
    rates = ClientRates(Rate(2, 60.0))
    assert [rates.take("a") for _ in range(3)] == [True, True, False]
    assert rates.take("b")


def test_less_than_one_a_period_is_one(clock: Clock) -> None:
    rates = ClientRates(Rate(0.5, 1.0))
    assert rates.take("a")
    assert not rates.take("a")
    clock.now_s += 2.0
    assert rates.take("a")


def test_who_was_quiet_longest_is_forgotten_before_the_table_grows_for_ever(clock: Clock) -> None:
    rates = ClientRates(Rate(1, 3600.0))
    for number in range(MAX_RATED + 1):
        assert rates.take(str(number))
    assert rates.take("0"), "it is as if it had never come"
    assert not rates.take(str(MAX_RATED))
