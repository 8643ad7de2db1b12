"""Whose page sends a request, as browsers tell it."""

from __future__ import annotations

from relaygw.web.gate.access import is_foreign, is_from_browser
from tests.tables import each_of
from tests.unit.web.heads import connection

SITE = "sec-fetch-site"


@each_of(
    "headers",
    [
        [],  # a program
        [("origin", "http://mail.test")],
        [("origin", "https://mail.test")],  # a proxy ends TLS
        [("origin", "https://MAIL.test:443")],
        [("origin", "http://mail.test:80"), (SITE, "same-origin")],
        [("host", "mail.test:8025"), ("origin", "http://mail.test:8025")],
        [("host", "mail.test:443"), ("origin", "https://mail.test")],
        [("host", "[::1]:8025"), ("origin", "http://[::1]:8025")],
        [(SITE, "none")],  # typed by hand
    ],
)
def test_ours(headers: list[tuple[str, str]]) -> None:
    assert not is_foreign(connection(*headers), is_https=False)


@each_of(
    "headers",
    [
        [("origin", "null")],
        [("origin", "")],
        [("origin", "http://evil.test")],
        [("origin", "http://mail.test.evil.test")],
        [("origin", "http://evil.mail.test")],
        [("origin", "http://mail.test:8026")],
        [("origin", "https://mail.test:80")],
        [("origin", "http://mail.test@evil.test")],
        [("origin", "http://evil.test#@mail.test")],
        [("origin", "ftp://mail.test")],
        [("origin", "//mail.test")],
        [("origin", "mail.test")],
        [("origin", "http://mail.test:x")],
        [("origin", "http://[mail.test")],
        [("origin", "http://mail.test http://evil.test")],
        [("origin", "http://mail.test"), ("origin", "http://evil.test")],
        [("origin", "http://mail.test"), (SITE, "cross-site")],
        [("origin", "http://mail.test"), (SITE, "same-site")],
        [(SITE, "cross-site")],
        [(SITE, "same-site")],
        [(SITE, "whatever comes next")],
        [("host", "mail.test:8025"), ("origin", "http://mail.test")],
    ],
)
def test_foreign(headers: list[tuple[str, str]]) -> None:
    assert is_foreign(connection(*headers), is_https=False)


def test_a_page_that_was_not_encrypted_is_foreign_to_one_that_is() -> None:
    assert is_foreign(connection(("origin", "http://mail.test")), is_https=True)
    assert not is_foreign(connection(("origin", "https://mail.test")), is_https=True)


def test_who_is_a_browser() -> None:
    assert is_from_browser(connection(("origin", "http://mail.test")))
    assert is_from_browser(connection((SITE, "same-origin")))
    assert not is_from_browser(connection(("user-agent", "Mozilla/5.0"), ("sec-fetch-mode", "x")))
