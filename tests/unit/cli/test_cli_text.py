from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.cli.text import cells, cut, fitted, labelled, moment
from relaygw.mail.clock import rfc3339
from relaygw.mail.words import age, printable, size
from tests.tables import each_of


@given(st.text(), st.integers(min_value=1, max_value=60))
def test_fitted_takes_exactly_its_cells_on_one_line(text: str, width: int) -> None:
    shown = fitted(text, width)
    assert cells(shown) == width
    assert shown.isprintable()


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("abc", 5, "abc  "),
        ("abcdef", 5, "abcd…"),
        ("注文確認", 5, "注文…"),
        ("注文確認", 6, "注文… "),
        ("a\nb\x1b[0m", 9, "a?b?[0m  "),
    ],
)
def test_fitted(text: str, width: int, shown: str) -> None:
    assert fitted(text, width) == shown


@given(st.text(), st.integers(min_value=1, max_value=60))
def test_cut_leaves_what_fits(text: str, width: int) -> None:
    shown = cut(text, width)
    assert cells(shown) <= width
    assert shown == printable(text) or cells(printable(text)) > width


@given(st.text(alphabet="ab 注文é\u0301-\n", max_size=400), st.booleans())
def test_a_label_and_its_text_are_folded_by_cells(text: str, breaks_words: bool) -> None:
    shown = labelled("subject", text, breaks_words=breaks_words)
    lines = shown.splitlines()
    assert "".join(shown[12:].split()) == "".join(printable(text).split())
    if breaks_words:
        assert max(map(cells, lines), default=0) <= 80


@given(st.text())
def test_nothing_that_a_terminal_obeys_gets_through(text: str) -> None:
    assert printable(text).isprintable()


@pytest.mark.parametrize(
    ("duration_ms", "shown"),
    [(-5, "0s"), (999, "0s"), (59_999, "59s"), (60_000, "1m"), (7_200_000, "2h"),
     (86_400_000 * 400, "400d")],
)  # fmt: skip
def test_age(duration_ms: int, shown: str) -> None:
    assert age(duration_ms) == shown


@each_of(
    ("size_bytes", "shown"),
    [(0, "0"), (999, "999"), (1000, "1.0k"), (9949, "9.9k"), (9951, "10k"), (999_499, "999k"),
     (999_500, "1.0M"), (25_000_000, "25M"), (999 * 10**12, "999T"), (10**15, "huge")],
)  # fmt: skip
def test_size(size_bytes: int, shown: str) -> None:
    assert size(size_bytes) == shown


@given(st.integers(min_value=0, max_value=10**18))
def test_a_size_fits_its_column(size_bytes: int) -> None:
    assert len(size(size_bytes)) <= 5


def test_times() -> None:
    assert rfc3339(1_795_600_000_007) == "2026-11-25T09:46:40.007Z"
    assert moment(1_795_600_000_000, 1_795_600_060_000) == "2026-11-25 09:46:40 UTC (1m ago)"
    assert moment(1_795_600_060_000, 1_795_600_000_000) == "2026-11-25 09:47:40 UTC (in 1m)"
    assert moment(1_795_600_299_999, 1_795_600_000_000) == "2026-11-25 09:51:39 UTC (in 5m)"


def test_a_label_and_its_text_stay_apart() -> None:
    assert labelled("suppressed", "a@x.test", indent=2) == "  suppressed a@x.test"
    assert labelled("meaning", "b", indent=2) == "  meaning   b"
