"""What a time of a selector means, and how lists are ordered without a word about it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from relaygw.mail.search import SearchMistake
from relaygw.mail.state import RecipientState
from relaygw.operations import selectors
from relaygw.operations.selectors import (
    ALL,
    SELECTORS,
    is_newest_first,
    misplaced,
    read_moment,
    selection_of,
)
from tests.tables import each_of

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)  # 13:00 in Berlin, a Friday
NOW_MS = int(NOW.timestamp()) * 1000


@pytest.fixture(autouse=True)
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@each_of(
    "text, since, until",
    [
        ("today", "2026-11-26T23:00:00", "2026-11-27T22:59:59.999"),
        (" Yesterday ", "2026-11-25T23:00:00", "2026-11-26T22:59:59.999"),
        ("10:30", "2026-11-27T09:30:00", "2026-11-27T09:30:00"),
        ("9:05:07", "2026-11-27T08:05:07", "2026-11-27T08:05:07"),
        ("2026-11-20", "2026-11-19T23:00:00", "2026-11-20T22:59:59.999"),
        ("2026-07-01", "2026-06-30T22:00:00", "2026-07-01T21:59:59.999"),  # in summer
        ("2026-11-27T10:30", "2026-11-27T09:30:00", "2026-11-27T09:30:00"),
        ("2026-11-27T10:30Z", "2026-11-27T10:30:00", "2026-11-27T10:30:00"),
        ("2h", "2026-11-27T10:00:00", "2026-11-27T10:00:00"),
        ("7d", "2026-11-20T12:00:00", "2026-11-20T12:00:00"),
        ("0001-01-01", "1970-01-01T00:00:00", None),
    ],
)
def test_times_are_of_this_machines_zone_and_a_day_ends_late(
    text: str, since: str, until: str | None
) -> None:
    found = read_moment(text, now_ms=NOW_MS), read_moment(text, now_ms=NOW_MS, is_end=True)
    wanted = [datetime.fromisoformat(one).replace(tzinfo=UTC) for one in (since, until) if one]
    assert list(found)[: len(wanted)] == [round(one.timestamp() * 1000) for one in wanted]


@each_of("text", ["", "soon", "25:00", "2026-13-01", "bounced", "7 dwarfs"])
def test_what_is_no_time(text: str) -> None:
    assert read_moment(text, now_ms=NOW_MS) is None


@each_of(
    "name, word, other",
    [
        ("state", "bounced", "result"),
        ("result", "deferred", "state"),
        ("result", ALL, "state"),
        ("state", "lost", ""),
        ("state", "held", ""),
    ],
)
def test_a_word_for_another_selector_is_known(name: str, word: str, other: str) -> None:
    assert misplaced(name, word) == other


@each_of(
    "values, newest_first",
    [
        ({}, False),
        ({"state": ["deferred", "held"]}, False),
        ({"state": ["finished"]}, True),
        ({"state": [ALL]}, True),
        ({"result": ["bounced"]}, True),
        ({"result": ["bounced"], "state": ["deferred"]}, True),
        ({"id": ["1M89BZ88N46GD3SE7"]}, False),
    ],
)
def test_what_waits_is_oldest_first_and_what_is_over_newest_first(
    values: dict[str, list[str]], newest_first: bool
) -> None:
    selection = selection_of(values, default_states=SELECTED, now_ms=NOW_MS)
    assert is_newest_first(selection) is newest_first


SELECTED = selection_of({"state": ["incoming"]}, default_states=frozenset(), now_ms=0).states


def test_results_are_looked_for_in_every_state() -> None:
    found = selection_of({"result": ["bounced"]}, default_states=SELECTED, now_ms=0)
    assert found.results == {RecipientState.BOUNCED}
    assert found.states > SELECTED
    assert list(SELECTORS)[:5] == ["id", "sender", "recipient", "subject", "state"]


@each_of("text", ["today", "yesterday", "10:30", "7d", "2026-11-20", "2026-11-27T10:30Z"])
def test_a_search_reads_times_as_the_selectors_do(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selectors, "clock_ms", lambda: NOW_MS)
    for zone in (None, UTC):
        at_ms = read_moment(text, now_ms=NOW_MS, tz=zone)
        terms = selectors.search_of(f'after:{text} -before:"{text}"', since=text, tz=zone).terms
        assert [one.number for one in terms] == [at_ms] * 3
    with pytest.raises(SearchMistake, match="'before:soon' is not a time"):
        selectors.search_of("before:soon")
