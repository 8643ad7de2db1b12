from __future__ import annotations

import pytest

from relaygw.web import words
from relaygw.web.mail.html_page import Link
from relaygw.web.mail.views import listed_links
from relaygw.web.page import notice_of, with_notice
from relaygw.web.sandbox.inbox import list_path, make_filter, message_path, tag_term
from tests.tables import each_of


@each_of(
    ("size_bytes", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (9_949, "9.9 kB"), (9_960, "10 kB"),
     (999_400, "999 kB"), (999_600, "1.0 MB"), (25_400_000, "25 MB"),
     (3_000_000_000_000, "3000 GB")],
)  # fmt: skip
def test_sizes(size_bytes: int, shown: str) -> None:
    assert words.size(size_bytes) == shown


@pytest.mark.parametrize(
    ("reason", "shown"),
    [("sandbox mode", "Sandbox mode"), ("staging: not on the allow list", "Not on the allow list"),
     ("staging: not on the allow list, redirected", "Not on the allow list"),
     ("local recipient without a rule; set …", "No domain in the address"),
     ("something new", "Something new")],
)  # fmt: skip
def test_reasons_in_plain_words(reason: str, shown: str) -> None:
    assert words.reason_words(reason) == shown


def test_captured_without_a_route() -> None:
    assert words.reason_words(None, "captured") == "No route matches"


def test_a_filter_adds_its_word_and_takes_it_out() -> None:
    added = make_filter('"two words" from:x', "is:unread", "Unread")
    assert not added.is_on
    assert added.path == list_path('"two words" from:x is:unread')
    removed = make_filter('IS:UNREAD "two words"', "is:unread", "Unread")
    assert removed.is_on
    assert removed.path == list_path('"two words"')


def test_a_tag_is_searched_for_as_a_whole() -> None:
    assert tag_term("eu") == "tag:eu"
    assert tag_term('a "b" c') == 'tag:"a  b  c"'


def test_paths_are_encoded() -> None:
    assert list_path("a&b=c #", page=3) == "/sandbox?query=a%26b%3Dc+%23&page=3"
    assert message_path("ID", "x", view="text") == "/sandbox/ID?query=x&view=text"
    assert list_path() == "/sandbox"


def test_a_notice_says_only_known_words() -> None:
    path = with_notice("/sandbox?query=x", "deleted", 1234)
    assert path == "/sandbox?query=x&did=deleted&number=1234"
    assert notice_of({"did": "deleted", "number": "1"}) == "1 message deleted."
    assert notice_of({"did": "<b>", "number": "1"}) == ""
    assert notice_of({"did": "deleted", "number": "1e9"}) == ""
    assert notice_of({}) == ""


def test_links_are_listed_once_with_a_word_of_warning() -> None:
    html = [
        Link("https://shop.test/a", "Shop"),
        Link("https://shop.test/a", "Shop"),
        Link("https://click.test/9", "https://shop.test/reset"),
        Link("https://www.shop.test/", "shop.test"),
        Link("javascript:alert(1)", "x"),
        Link("/relative", "x"),
        Link("mailto:a@x.test", "write"),
        Link("https://[", "broken"),
    ]
    links, has_more = listed_links(
        html, "See https://text.test/b. Or (http://c.test/).", ["mailto:u@x"]
    )
    assert not has_more
    assert [(one.target, one.number, one.where) for one in links[:2]] == [
        ("https://shop.test/a", 2, "HTML"),
        ("https://click.test/9", 1, "HTML"),
    ]
    assert links[1].warning == "shows shop.test, leads to click.test"
    assert links[2].warning == ""
    assert not links[3].is_web
    assert "script" in links[3].warning
    assert links[4].warning == "not a complete address"
    assert links[5].warning == ""
    assert not links[6].is_web
    assert [one.target for one in links[7:]] == [
        "https://text.test/b",
        "http://c.test/",
        "mailto:u@x",
    ]


def test_more_links_than_are_listed() -> None:
    text = " ".join(f"https://x.test/{number}" for number in range(600))
    links, has_more = listed_links((), text, ())
    assert len(links) == 500
    assert has_more
