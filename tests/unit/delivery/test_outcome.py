"""Outcomes of the parts of one attempt."""

from __future__ import annotations

import pytest

from relaygw.delivery.attempt import Attempt
from relaygw.delivery.outcome import _what_is_new
from tests.builders import NOW_MS, claimed, update_of

HOUR_MS = 3_600_000


@pytest.mark.parametrize(
    ("due_at_ms", "recorded_ms"),
    [
        (NOW_MS, NOW_MS + 1),  # the store tells the outcomes of parts apart by it
        (NOW_MS + HOUR_MS, NOW_MS + HOUR_MS),
        (NOW_MS - HOUR_MS, NOW_MS - HOUR_MS),  # nothing waits for an hour
    ],
    ids=["at-once", "later", "clock-set-back"],
)
def test_a_part_is_due_when_it_says_whatever_the_part_before_said(
    due_at_ms: int, recorded_ms: int
) -> None:
    attempt = Attempt(claimed("a@y.test", "b@y.test"), "p")
    attempt.due_at_ms = NOW_MS
    update = update_of(attempt.claimed.queue_id, due_at_ms=due_at_ms)
    assert _what_is_new(attempt, update).due_at_ms == recorded_ms
