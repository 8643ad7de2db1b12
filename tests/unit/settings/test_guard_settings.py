"""What the sections about the guard, silence, storms and the digest take, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from relaygw.settings.guard import Days
from relaygw.settings.model import Settings
from tests.tables import each_of

Fail = Callable[..., list[str]]
OFF: dict[str, Any] = {
    "mode": "sandbox",
    "guard": {"action": "off"},
    "silence": {"enabled": False},
    "storms": {"action": "off"},
}
NEEDS: dict[str, Any] = {
    "guard": {"action": "hold"},
    "silence": {"enabled": True},
    "expect": [{"subject": "*", "at_least": "1/d"}],
    "storms": {"action": "alert"},
    "digest": {"to": "ops@x.test", "sender": "gw@x.test"},
}


def test_nothing_is_counted_where_nothing_asks_for_it() -> None:
    assert Settings.model_validate({"mode": "sandbox"}).counts_sources
    assert not Settings.model_validate(OFF).counts_sources
    for name, section in NEEDS.items():
        assert Settings.model_validate({**OFF, name: section}).counts_sources, name


def test_days_of_a_sale() -> None:
    sale = Days.parse("2026-11-27..2026-11-30")
    assert date(2026, 11, 30) in sale and date(2026, 12, 1) not in sale
    assert str(Days.parse("2026-11-27")) == "2026-11-27"
    assert Days.parse("2026-11-27..2026-11-27") == Days.parse("2026-11-27")


@each_of(
    ("text", "problem"),
    [
        ("guard: {action: loud}", '"loud" is not one of off, alert, hold'),
        ("guard: {new_per_hour: 0}", "guard.new_per_hour"),
        ("guard: {refused_share: 20}", "is not a share"),
        ("guard: {quiet: [2026-13-01]}", "is not a day"),
        ("guard: {quiet: [2026-W48-5]}", "is not a day"),
        ("guard: {quiet: [2026-11-30..2026-11-27]}", "must be 1 to 366 days"),
        ("expect: [{subject: '*order*', at_least: 5/h}]", "5/h is not a number a day"),
        ("expect: [{subject: '', at_least: 5/d}]", "expect.0.subject"),
        ("expect: [{subject: x}]", "expect.0.at_least: is required"),
        ("storms: {window: 2d}", "is longer than a day"),
        ("duplicates: twice", '"twice" is not one of send, once'),
        ("content_check: {transactional: block}", '"block" is not one of off, warn, hold'),
        ("digest: {every: 2h}", "is neither 1d nor 7d"),
        ("heartbeat_url: ftp://x", "heartbeat_url"),
    ],
)
def test_what_is_wrong_is_told(lines_of: Fail, text: str, problem: str) -> None:
    (line,) = lines_of(f"mode: sandbox\n{text}\n")
    assert problem in line and line.startswith("relaygw.yaml:2: ")


@pytest.mark.parametrize("url", ["https://ping.example.com/TOKEN-1", "env:BEAT"])
def test_the_address_of_the_monitor_is_a_secret(url: str) -> None:
    settings = Settings.model_validate({"mode": "sandbox", "heartbeat_url": url})
    shown = settings.model_dump_json()
    assert "TOKEN-1" not in shown and "TOKEN-1" not in repr(settings)
