from __future__ import annotations

import re
from pathlib import Path

import pytest

import relaygw.web
from relaygw.mail.clock import utc_text
from relaygw.web import words
from tests.tables import each_of

WEB = Path(relaygw.web.__file__).parent
NOW_MS = 1_795_600_000_000
AT_MS = 1_764_064_803_123  # 25 Nov 2025, 10:00:03 UTC


@each_of(
    ("ago_s", "shown"),
    [(-5, "now"), (9, "now"), (10, "10 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"),
     (86_400, "1 d"), (6 * 86_400, "6 d"), (10 * 86_400, "15 Nov"), (400 * 86_400, "21 Oct 2025")],
)  # fmt: skip
def test_ages(ago_s: int, shown: str) -> None:
    assert words.age(NOW_MS - ago_s * 1000, NOW_MS) == shown


@each_of(
    ("form", "shown"),
    [("clock", "10:00 UTC"), ("minute", "25 Nov 2025, 10:00 UTC"),
     ("second", "25 Nov 2025, 10:00:03 UTC"), ("exact", "25 Nov 2025, 10:00:03 UTC"),
     ("date", "25 Nov 2025"), ("day", "Tuesday, 25 November 2025, UTC"),
     ("age", "25 Nov 2025"), ("ago", "on 25 Nov 2025"), ("until", "now"), ("due", "due now")],
)  # fmt: skip
def test_the_servers_text_is_utc_and_says_so(form: str, shown: str) -> None:
    assert words.FORMS[form](AT_MS, NOW_MS) == shown
    assert words.FORMS["minute"](AT_MS, AT_MS) == "25 Nov, 10:00 UTC"


@each_of(
    ("left_ms", "shown"),
    [(999, "now"), (1000, "in 1 s"), (59_600, "in 1 min"), (299_950, "in 5 min"),
     (269_000, "in 4 min"), (3_599_999, "in 1 h"), (86_399_000, "in 1 d")],
)  # fmt: skip
def test_a_time_to_come_is_the_nearest(left_ms: int, shown: str) -> None:
    assert words.FORMS["until"](NOW_MS + left_ms, NOW_MS) == shown
    assert words.FORMS["due"](NOW_MS + left_ms, NOW_MS) == shown.replace("now", "due now")


def test_a_time_is_one_element_with_the_whole_of_it_on_hover() -> None:
    assert words.time_tag(AT_MS, "clock", label="Accepted", css="mail-age") == (
        '<time class="mail-age" data-time="clock" datetime="2025-11-25T10:00:03.123Z"'
        ' title="Accepted 25 Nov 2025, 10:00:03 UTC">10:00 UTC</time>'
    )
    assert words.time_tag(None) == ""


def test_times_in_a_text_become_elements_and_nothing_else_does() -> None:
    shown = words.with_times(f"<b> since {utc_text(AT_MS)}; not 2025-99-99 10:00:00 UTC")
    assert shown.startswith('&lt;b&gt; since <time data-time="second"')
    assert shown.endswith("10:00:03 UTC</time>; not 2025-99-99 10:00:00 UTC")


def test_the_script_knows_all_forms() -> None:
    script = (WEB / "static" / "relaygw.js").read_text()
    table = script.partition("const TIMES = {")[2].partition("\n};")[0]
    assert set(re.findall(r"^  (\w+)[:,]", table, re.MULTILINE)) == set(words.FORMS)


@pytest.mark.parametrize("path", sorted(WEB.glob("templates/*.html")), ids=lambda path: path.name)
def test_templates_write_times_by_the_one_filter(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"<time|strftime|isoformat|datetime|%[HM]\b|data-time", text)
    for shown in re.findall(r"\{\{(.*?)\}\}", text):
        assert not re.search(r"_ms\b(?!\|(?:time|time_span|utc_day)\b|,| is )", shown), shown


def test_no_module_of_the_pages_formats_times_by_itself() -> None:
    by_hand = r"local_time|strftime|:%[HdabB]"
    found = [
        str(path.relative_to(WEB))
        for path in WEB.rglob("*.py")
        if path.name != "words.py" and re.search(by_hand, path.read_text())
    ]
    assert found == []
