"""What mail programs make of HTML and CSS, by the table in the package."""

from __future__ import annotations

import re
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from relaygw.web.mail.html_check import check_html, table
from tests.tables import each_of

PAGE = """<!doctype html><style>/* c */ @media (prefers-color-scheme: dark) { .a:hover > b { color:
rgb(1, 2, 3) } } #x::before { display: flex !important; width: calc(10px + 2vw) }
@font-face { src: url(http://x.test/a.woff2) } p { & b { margin: 0 } }</style>
<div align=left style="border-radius: 4px; background: url(http://x.test/a.webp?1)">
<img src="data:image/png;base64,AA"><a href="mailto:a@x.test">a</a><a href="#top">b</a>
<video></video><input type=checkbox><!-- c --></div>"""
USED = {
    *("html-doctype", "html-style", "css-comments", "css-at-media", "css-pseudo-class-hover"),
    *("css-at-media-prefers-color-scheme", "css-selector-class", "css-selector-child", "css-rgb"),
    *("css-selector-id", "css-pseudo-element-before", "css-display-flex", "css-important"),
    *("css-unit-calc", "css-unit-vw", "css-at-font-face", "css-nesting", "html-align"),
    *("css-border-radius", "image-webp", "image-base64", "html-anchor-links", "html-mailto-links"),
    *("html-video", "html-input-checkbox", "html-comments"),
}


def test_the_table_says_where_it_is_from_and_fits() -> None:
    found = table()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["date"])
    assert found["source"] == "https://www.caniemail.com"
    licence = Path(__file__).parents[3] / "relaygw/web/mail/caniemail.LICENSE"
    assert found["licence"].removeprefix("MIT, ") in licence.read_text()
    assert len(found["features"]) > 250
    for slug, one in found["features"].items():
        cells = one["support"].split()
        assert len(cells) == len(found["clients"]), slug
        assert all(re.fullmatch(r"[yanu-]\d*", cell) for cell in cells), slug


def test_what_a_mail_uses_is_found_and_weighed() -> None:
    found = check_html(PAGE)
    lacking = {one.slug: one for one in found.lacking}
    every = set(table()["features"])
    assert every >= USED
    known_to_all = {
        slug for slug in USED if not re.search(r"[an]", table()["features"][slug]["support"])
    }
    assert lacking.keys() >= USED - known_to_all
    assert "html-audio" not in lacking
    video = lacking["html-video"]
    assert (video.found, video.category) == (1, "html")
    assert video.url == "https://www.caniemail.com/features/html-video/"
    support = {one.name: one.support for one in video.programs}
    assert support["Apple Mail iOS"] == "partial"
    assert support["Gmail Desktop Webmail"] == "no"
    assert abs(video.supported + video.partial + video.unsupported - 100) < 0.01
    assert abs(found.supported + found.partial + found.unsupported - 100) < 0.01
    shares = [one.unsupported for one in found.lacking]
    assert shares == sorted(shares, reverse=True)


def test_a_plain_mail_lacks_nothing() -> None:
    found = check_html("<p>hello</p>")
    assert [one.slug for one in found.lacking if one.unsupported > 5] == []
    assert check_html("").supported == 100


BOMBS = {
    "braces": "<style>" + "{" * 500_000,
    "no ends": "<style>" + "a:1" * 150_000,
    "declarations": "<style>" + "a:1;" * 120_000,
    "digits": "<div style='width:" + "1" * 300_000 + "'>",
    "functions": "<style>a{b:" + "(a" * 200_000 + "}",
    "comments": "<!--" * 500_000,
    "attributes": "<p a=b>" * 250_000,
    "selectors": "<style>" + ("[a " * 500 + "{") * 300,
    "styles": "<p style='a:1;b:2;c:calc(1px)'>" * 60_000,
}


def test_stray_brackets_count_as_tags() -> None:
    assert check_html("<" * 1000 + "<video>").tags == 1
    assert check_html("<" * 1_000_000 + "<video>").tags == 0


@each_of("name", BOMBS)
def test_it_costs_what_its_length_says(name: str) -> None:
    started = time.process_time()
    check_html(BOMBS[name])
    assert time.process_time() - started < 4


@given(st.text(alphabet="<>/{}:;@#.()*!'\"=-a1% \n", max_size=300))
def test_it_never_raises(text: str) -> None:
    for page in (text, f"<style>{text}</style>", f"<p style='{text}'>"):
        assert 0 <= check_html(page).supported <= 100.001
