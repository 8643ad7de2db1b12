"""How a receiver of webhooks does, in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from relaygw.mail.clock import DAY_MS
from relaygw.policy.receivers import Endpoint, trouble_of
from tests.builders import NOW_MS
from tests.tables import each_of

WELL = Endpoint(
    endpoint="e1",
    label=None,
    failures=0,
    next_at_ms=0,
    failing_since_ms=None,
    paused_at_ms=None,
    disabled_at_ms=None,
    taken_at_ms=None,
    last_error=None,
    dropped=0,
    dropped_at_ms=None,
    waiting=0,
    is_more_waiting=False,
    oldest_at_ms=None,
)


@each_of(
    ("more", "state", "summary"),
    [
        ({}, "ok", None),
        ({"waiting": 1, "oldest_at_ms": NOW_MS - DAY_MS + 1}, "ok", None),
        ({"waiting": 1, "oldest_at_ms": NOW_MS - DAY_MS}, "ok", "gets nothing"),
        ({"failures": 1}, "failing", "fails, and is tried again: it does not answer"),
        ({"failures": 9, "paused_at_ms": NOW_MS}, "paused", "more than a day and is tried hourly"),
        ({"paused_at_ms": NOW_MS, "disabled_at_ms": NOW_MS}, "disabled", "is gone"),
    ],
)
def test_what_is_wrong_with_it(more: dict[str, Any], state: str, summary: str | None) -> None:
    one = replace(WELL, **more)
    trouble = trouble_of("shop", one, now_ms=NOW_MS)
    assert one.state == state
    assert trouble is None if summary is None else trouble and summary in trouble.summary
