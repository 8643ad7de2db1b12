"""What flaps is not told; what lasts is, and so is its end."""

from __future__ import annotations

import math
from typing import Any

from relaygw.alerting.facts import Finding
from relaygw.alerting.hysteresis import Hysteresis
from relaygw.settings.alerts import Rule
from relaygw.store.watch import Incident

NOW_MS = 1_795_600_000_000
MAIN = Finding(rule=Rule.PROVIDER_DOWN, key="main", summary="s", remedy="r")
INCIDENT = Incident(
    incident_id="1", rule="provider_down", key="main", summary="s", remedy="r", since_ms=NOW_MS
)


def at(seconds: float) -> int:
    return NOW_MS + int(seconds * 1000)


def test_a_finding_becomes_an_incident_once_it_has_lasted() -> None:
    lasting = Hysteresis(20.0)
    assert lasting.begun([MAIN], [], now_ms=at(0)) == []
    assert lasting.begun([MAIN], [], now_ms=at(19.9)) == []
    assert lasting.begun([MAIN], [], now_ms=at(20)) == [(MAIN, at(0))]


def test_a_finding_that_goes_away_begins_anew() -> None:
    lasting = Hysteresis(20.0)
    lasting.begun([MAIN], [], now_ms=at(0))
    lasting.begun([], [], now_ms=at(10))
    assert lasting.begun([MAIN], [], now_ms=at(20)) == []
    assert lasting.begun([MAIN], [], now_ms=at(39)) == []
    assert lasting.begun([MAIN], [], now_ms=at(40)) == [(MAIN, at(20))]


def test_what_is_known_to_last_is_told_at_once() -> None:
    old = Finding(rule=Rule.PROVIDER_DOWN, key="main", summary="s", remedy="r", since_ms=at(-30))
    assert Hysteresis(20.0).begun([old], [], now_ms=at(0)) == [(old, at(-30))]


def test_what_is_an_incident_already_does_not_begin() -> None:
    lasting = Hysteresis(20.0)
    lasting.begun([MAIN], [INCIDENT], now_ms=at(0))
    assert lasting.begun([MAIN], [INCIDENT], now_ms=at(60)) == []


def test_an_incident_ends_once_nothing_was_found_for_as_long() -> None:
    lasting = Hysteresis(20.0)
    assert lasting.ended([MAIN], [INCIDENT], now_ms=at(0)) == []
    assert lasting.ended([], [INCIDENT], now_ms=at(5)) == []
    assert lasting.ended([], [INCIDENT], now_ms=at(24.9)) == []
    assert lasting.ended([], [INCIDENT], now_ms=at(25)) == [INCIDENT]


def test_what_somebody_let_go_ends_at_once() -> None:
    over: dict[str, Any] = {"now_ms": at(0), "is_over": lambda one: one.key == "main"}
    assert Hysteresis(20.0).ended([], [INCIDENT], **over) == [INCIDENT]
    assert Hysteresis(20.0).ended([MAIN], [INCIDENT], **over) == []


def test_what_comes_back_in_between_does_not_end() -> None:
    lasting = Hysteresis(20.0)
    for seconds in range(0, 200, 10):
        findings = [MAIN] if seconds % 20 else []
        assert lasting.ended(findings, [INCIDENT], now_ms=at(seconds)) == []


def test_nothing_waits_for_a_clock_that_was_set_back() -> None:
    lasting = Hysteresis(20.0)
    known = Finding(rule=Rule.QUOTA_NEAR, key="main", summary="s", remedy="r", since_ms=at(3600))
    lasting.begun([MAIN], [], now_ms=at(3600))
    assert lasting.begun([MAIN, known], [], now_ms=at(0)) == []
    assert lasting.begun([MAIN, known], [], now_ms=at(20)) == [(MAIN, at(0)), (known, at(0))]
    lasting.ended([], [INCIDENT], now_ms=at(3600))
    assert lasting.ended([], [INCIDENT], now_ms=at(0)) == []
    assert lasting.ended([], [INCIDENT], now_ms=at(20)) == [INCIDENT]


def test_it_says_when_the_next_look_is_worth_it() -> None:
    lasting = Hysteresis(20.0)
    other = Finding(rule=Rule.PROVIDER_DOWN, key="other", summary="s", remedy="r")
    assert lasting.left_s([], now_ms=at(0)) == math.inf
    lasting.begun([MAIN], [], now_ms=at(0))
    lasting.begun([MAIN, other], [], now_ms=at(5))
    assert lasting.left_s([], now_ms=at(5)) == 15
    assert lasting.left_s([INCIDENT], now_ms=at(5)) == 20, "of the other one"
    assert lasting.begun([MAIN, other], [], now_ms=at(20)) == [(MAIN, at(0))]
    assert lasting.left_s([], now_ms=at(20)) == 5


def test_it_says_when_the_next_end_is_worth_a_look() -> None:
    lasting = Hysteresis(20.0)
    lasting.begun([], [INCIDENT], now_ms=at(0))
    lasting.ended([], [INCIDENT], now_ms=at(0))
    assert lasting.left_s([INCIDENT], now_ms=at(8)) == 12
    lasting.ended([MAIN], [INCIDENT], now_ms=at(8))
    assert lasting.left_s([INCIDENT], now_ms=at(8)) == math.inf
