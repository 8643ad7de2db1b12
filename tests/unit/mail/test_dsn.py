"""DSN wishes: read leniently, kept in one form, sent as RFC 3461 writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.mail.dsn_request import (
    NO_REQUEST,
    DsnRequest,
    encode_xtext,
    mail_parameters,
    rcpt_parameters,
    read_orcpt,
    read_request,
)
from tests.tables import each_of


@pytest.mark.parametrize(
    ("given_words", "kept"),
    [
        ("never", "NEVER"),
        ("delay,Failure", "FAILURE,DELAY"),
        ("success,failure,delay,success", "SUCCESS,FAILURE,DELAY"),
        ("never,failure", None),
        ("always", None),
        ("", None),
        ("failure\r\nDATA", None),
    ],
)
def test_notify(given_words: str, kept: str | None) -> None:
    assert read_request(notify=given_words, ret=None, envid=None).notify == kept


def test_what_is_wrong_is_left_out() -> None:
    assert read_request(notify=None, ret=None, envid=None) is NO_REQUEST
    assert read_request(notify="x", ret="all", envid="a\nb") == DsnRequest()
    assert read_request(notify=None, ret="hdrs", envid="o+1").ret == "HDRS"
    # what counts is its length as it is sent
    assert read_request(notify=None, ret=None, envid="x" * 100).envid == "x" * 100
    assert read_request(notify=None, ret=None, envid="x" * 99 + "+").envid is None
    assert read_request(notify=None, ret=None, envid="ä").envid is None


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_xtext_is_one_word_that_says_the_same(text: str) -> None:
    encoded = encode_xtext(text)
    assert not set(encoded) & set(b" =\r\n")
    decoded = b""
    rest = encoded
    while rest:
        step = 3 if rest[:1] == b"+" else 1
        decoded += bytes.fromhex(rest[1:3].decode()) if step == 3 else rest[:1]
        rest = rest[step:]
    assert decoded.decode() == text


@each_of(
    ("text", "kept"),
    [
        ("rfc822;a+40b", "rfc822;a+40b"),
        ("UTF-8;jürgen@x.test", r"UTF-8;j\x{FC}rgen@x.test"),
        ("rfc822;jürgen@x.test", None),
        ("no semicolon", None),
        ("x y;a", None),
        ("rfc822;" + "x" * 493, "rfc822;" + "x" * 493),
        ("rfc822;" + "x" * 494, None),
        ("utf-8;" + "ü" * 100, ""),
    ],
)
def test_orcpt(text: str, kept: str | None) -> None:
    assert read_orcpt(text) == kept


def test_parameters() -> None:
    assert mail_parameters(None, None) == rcpt_parameters(None) == b""
    assert mail_parameters("HDRS", "a b+c=d") == b" RET=HDRS ENVID=a+20b+2Bc+3Dd"
    assert rcpt_parameters("FAILURE,DELAY") == b" NOTIFY=FAILURE,DELAY"
