"""Counts of wrong passwords, on a clock that the test moves."""

from __future__ import annotations

import pytest

from relaygw import passwords
from relaygw.passwords import Guessing
from tests.builders import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(passwords, "time", clock)
    return clock


def test_the_table_does_not_grow_for_ever(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_MAX_ADDRESSES", 10)
    guesses = Guessing()
    for number in range(1000):
        guesses.count_failure(str(number))
    assert len(guesses._failures) == 10


def test_failures_lock_for_a_while(clock: Clock) -> None:
    guesses = Guessing()
    for _ in range(passwords.MAX_FAILURES):
        assert not guesses.is_locked("a")
        guesses.count_failure("a")
    assert guesses.is_locked("a")
    assert not guesses.is_locked("b")
    clock.now_s += passwords.LOCKED_S
    assert not guesses.is_locked("a")
    guesses.count_failure("a")
    assert not guesses.is_locked("a")


def test_failures_far_apart_do_not_lock(clock: Clock) -> None:
    guesses = Guessing()
    for _ in range(100):
        guesses.count_failure("a")
        clock.now_s += passwords.WITHIN_S / (passwords.MAX_FAILURES - 1)
    assert not guesses.is_locked("a")
