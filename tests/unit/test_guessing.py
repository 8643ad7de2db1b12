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


def test_the_table_does_not_grow_for_ever(clock: Clock) -> None:
    guesses = Guessing()
    for client in ("first", "last"):
        for _ in range(passwords.MAX_FAILURES - 1):
            guesses.count_failure(client)
        for number in range(passwords.MAX_ADDRESSES - 1):
            guesses.count_failure(f"{client} {number}")
    for client in ("last", "first"):
        guesses.count_failure(client)
    assert (guesses.is_locked("first"), guesses.is_locked("last")) == (False, True)


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
