"""The strict address parser."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.errors import InvalidAddress
from relaygw.mail.address import canonical, distinct, parse_path
from tests.tables import each_of


@each_of(
    ("raw", "address", "rest"),
    [
        (b"<a@b.test>", "a@b.test", b""),
        (b"<a@b.test> SIZE=1", "a@b.test", b" SIZE=1"),
        (b"<>", "", b""),
        (b"<postmaster>", "postmaster", b""),
        (b'<"a b"@c.test>', '"a b"@c.test', b""),
        (b'<"a>b"@c.test> X', '"a>b"@c.test', b" X"),
        (b"<x@[1.2.3.4]>", "x@[1.2.3.4]", b""),
        (b"<x@[IPv6:::1]>", "x@[IPv6:::1]", b""),
        ("<jürgen@bücher.test>".encode(), "jürgen@bücher.test", b""),
    ],
)
def test_good_paths(raw: bytes, address: str, rest: bytes) -> None:
    assert parse_path(raw, smtputf8=True) == (address, rest)


@each_of(
    "raw",
    [
        b"a@b.test",
        b"<a@b.test",
        b"<a@b@c.test>",
        b"<a..b@c.test>",
        b"<.a@c.test>",
        b"<a@c.test.>",
        b"<a@-c.test>",
        b"<@x.test:a@c.test>",
        b"<a\x00@c.test>",
        b"<a\t@c.test>",
        b"<a\x7f@c.test>",
        b"<-o@c.test>",
        b"<=?utf-8?q?a?=@c.test>",
        b"<a@=?utf-8?q?c?=>",
        b"<a(comment)@c.test>",
        b"<a@c.test,b@d.test>",
        b"<a@[]>",
        b"<a@[300.1.1.1]>",
        b"<\xff@c.test>",
        "<a\u2028@c.test>".encode(),
        b"<a@" + b"l" * 64 + b".test>",
        b"<a@" + b"l.test" * 50 + b">",
    ],
)
def test_bad_paths(raw: bytes) -> None:
    with pytest.raises(InvalidAddress):
        parse_path(raw, smtputf8=True)


def test_non_ascii_needs_smtputf8() -> None:
    with pytest.raises(InvalidAddress) as caught:
        parse_path("<ü@c.test>".encode(), smtputf8=False)
    assert (caught.value.code, caught.value.status) == (553, "5.6.7")


@given(st.binary(max_size=60))
def test_whatever_passes_is_printable_and_stable(raw: bytes) -> None:
    try:
        address, _ = parse_path(b"<" + raw + b">", smtputf8=True)
    except InvalidAddress:
        return
    assert all(character.isprintable() for character in address if character < "\u00a0")
    if address:
        assert parse_path(f"<{address}>".encode(), smtputf8=True) == (address, b"")


def test_comparison_ignores_ascii_case_only() -> None:
    assert canonical("Dev@OK.test") == "dev@ok.test"
    assert canonical("dev@o\u212a.test") != "dev@ok.test"


def test_quotes_that_are_not_needed_make_no_other_mailbox() -> None:
    assert canonical('"Dev.Op"@OK.test') == "dev.op@ok.test"
    assert canonical('"de\\v"@ok.test') == "dev@ok.test"
    for needed in (
        '"a b"@ok.test',
        '"a@b"@ok.test',
        '".a"@ok.test',
        '"a..b"@ok.test',
        '""@ok.test',
    ):
        assert canonical(needed) == needed


def test_of_each_mailbox_the_first_address_is_kept() -> None:
    given = ["b@X.test", "a@x.test", "B@x.test", "a@x.test", "no address", '"', "b@y.test"]
    assert distinct(given) == ["b@X.test", "a@x.test", "no address", '"', "b@y.test"]
