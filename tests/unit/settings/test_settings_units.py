from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.settings.section import (
    Rate,
    format_duration,
    format_share,
    format_size,
    parse_duration,
    parse_interval,
    parse_network,
    parse_share,
    parse_size,
)
from tests.tables import each_of


@given(st.integers(0, 3650 * 86_400_000))
def test_a_duration_reads_back_as_it_was_shown(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 3650), st.sampled_from([("s", 1), ("m", 60), ("h", 3600), ("d", 86400)]))
def test_a_duration_is_its_number_times_its_unit(number: int, unit: tuple[str, int]) -> None:
    assert parse_duration(f"{number}{unit[0]}") == number * unit[1]


@given(st.integers(0, 2**40))
def test_a_size_reads_back_as_it_was_shown(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == size_bytes


@given(st.integers(0, 10_000))
def test_a_share_reads_back_as_it_was_shown(basis_points: int) -> None:
    share = parse_share(f"{basis_points / 100}%")
    assert 0 <= share <= 1
    assert parse_share(format_share(share)) == pytest.approx(share, abs=1e-12)


@given(st.text() | st.integers() | st.floats() | st.booleans() | st.none())
def test_any_value_is_read_or_refused_with_a_remedy(value: object) -> None:
    for parse in (parse_duration, parse_interval, parse_size, parse_share, parse_network):
        try:
            parse(value)
        except ValueError as error:
            assert "; write " in str(error)


@each_of("value", ["30", 30, "30 parsecs", "-5s", "1h30m", True, "٣s", "9999999d"])
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="; write "):
        parse_duration(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("250ms", 0.25), ("1.5h", 5400.0), ("7d", 604800.0), (0, 0.0), (" 5 m ", 300.0)],
)
def test_durations(text: object, expected: float) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("35MiB", 35 * 2**20), ("50MB", 50_000_000), (4096, 4096), ("1kB", 1000), ("1KiB", 1024)],
)
def test_sizes(text: object, expected: int) -> None:
    assert parse_size(text) == expected


def test_an_interval_is_longer_than_nothing() -> None:
    with pytest.raises(ValueError, match="longer than 0s"):
        parse_interval("0s")


@each_of(
    ("per_s", "shown"),
    [
        (20.0, "20/s"),
        (14.5, "14.5/s"),
        (1.96, "1.96/s"),
        (7.12345, "7.12/s"),
        (100_000.0, "100000/s"),
        (0.5, "30/m"),
        (5 / 60, "5/m"),
        (100 / 3600, "100/h"),
        (5000 / 3600, "5000/h"),
        (50_000 / 86_400, "50000/d"),
        (0.123456, "7.41/m"),
        (0.5 / 86_400, "0.5/d"),
    ],
)
def test_a_rate_is_shown_in_the_unit_that_reads_well(per_s: float, shown: str) -> None:
    assert str(Rate.readable(per_s)) == shown
    assert Rate.parse(shown).per_s == pytest.approx(per_s, rel=0.01)
