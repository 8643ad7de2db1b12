from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st

from relaygw.mail.mime_header import (
    MAX_ADDRESSES,
    MAX_FIELDS,
    decode_base64,
    decode_text,
    decode_words,
    read_addresses,
    read_fields,
    read_parameters,
)
from tests.memory import peak_bytes
from tests.tables import each_of


def pairs(value: str) -> list[tuple[str, str]]:
    return [(contact["Name"], contact["Address"]) for contact in read_addresses(value)]


@each_of(
    ("value", "expected"),
    [
        ("a@x.test", [("", "a@x.test")]),
        ("Ann <a@x.test>", [("Ann", "a@x.test")]),
        ('"Doe, John" <j@x.test>, b@x.test', [("Doe, John", "j@x.test"), ("", "b@x.test")]),
        ("=?utf-8?q?J=C3=B6rg?= <j@x.test>", [("Jörg", "j@x.test")]),
        ('"=?utf-8?B?SsO2cmc=?=" <j@x.test>', [("Jörg", "j@x.test")]),
        ("Jörg Ö <j@x.test>", [("Jörg Ö", "j@x.test")]),
        ("team: a@x.test, B <b@x.test>;, c@x.test", [
            ("", "a@x.test"), ("B", "b@x.test"), ("", "c@x.test"),
        ]),
        ("undisclosed-recipients:;", []),
        ("a@x.test (Ann, the (first) one)", [("Ann, the first one", "a@x.test")]),
        ("a@x.test (, b@x.test", [("a@x.test (", ""), ("", "b@x.test")]),
        ("a@[IPv6:::1]", [("", "a@[IPv6:::1]")]),
        ('"a b"@x.test', [("", '"a b"@x.test')]),
        ("www-data", [("", "www-data")]),
        ("Root User", [("Root User", "")]),
        ("<a@x.test", [("", "a@x.test")]),
        ("<>, , ;", [("", "")]),
        ("", []),
    ],
)  # fmt: skip
def test_addresses(value: str, expected: list[tuple[str, str]]) -> None:
    assert pairs(value) == expected


@each_of(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("=?utf-8?q?a_b?= =?utf-8?q?c?= d", "a bc d"),
        ("x =?iso-8859-1?q?=E4?= y", "x ä y"),
        ("=?utf-8?b?w6Q=?=", "ä"),
        # one character cut in two words
        ("=?utf-8?q?=C3?= =?utf-8?q?=A4?=", "ä"),
        ("=?utf-8*de?q?a?=", "a"),
        ("=?x-unknown?q?=C3=A4?=", "ä"),
        ("=?x-unknown?q?=E4?=", "ä"),
        ("=?utf-8?b?w6Q?=", "ä"),  # without its padding
        ("=?utf-8?b?w?=", ""),
        ("=?utf-7?q?+2AA-?=", "?"),  # a lone surrogate
        ("=?utf-8?q?a=0d=0ab?=", "a b"),
        ("=?utf-8?q?open", "=?utf-8?q?open"),
        ("=?hex?q?6161?=", "6161"),
        ("=?punycode?q?abc-?=", "abc-"),
        ("=?unicode-escape?q?=5Cx41?=", "\\x41"),
    ],
)
def test_encoded_words(text: str, expected: str) -> None:
    assert decode_words(text) == expected


@each_of(
    ("value", "expected"),
    [
        ("Text/HTML; charset=UTF-8", ("text/html", {"charset": "UTF-8"})),
        ('a/b; name="x; y=z.pdf"', ("a/b", {"name": "x; y=z.pdf"})),
        (r'a/b; name="say \"hi\".pdf"', ("a/b", {"name": 'say "hi".pdf'})),
        ("a/b; name=my file.pdf ; x=1", ("a/b", {"name": "my file.pdf", "x": "1"})),
        ('a/b; name="open', ("a/b", {"name": "open"})),
        ("attachment; filename*=utf-8''%e2%82%ac.txt", ("attachment", {"filename": "€.txt"})),
        ("a; filename=plain.txt; filename*=utf-8''%c3%a4.txt", ("a", {"filename": "ä.txt"})),
        (
            "a; filename*1=b.txt; filename*0*=iso-8859-1''%e4",
            ("a", {"filename": "äb.txt"}),
        ),
        ("a; filename*1*=lost", ("a", {"filename": ""})),
        (r'a; filename="C:\shop\a.pdf"', ("a", {"filename": r"C:\shop\a.pdf"})),
        ('a; name="=?utf-8?q?a?="', ("a", {"name": "=?utf-8?q?a?="})),
        ("", ("", {})),
    ],
)
def test_parameters(value: str, expected: tuple[str, dict[str, str]]) -> None:
    assert read_parameters(value.encode()) == expected


def test_fields_are_unfolded_and_lines_that_are_none_are_skipped() -> None:
    block = b"From x@y Mon\r\nA: 1\r\n\t2\r\n: novalue\r\nX\r\nB:\xe4\r\nC: \xc3\xa4\r\na: 3\r\n"
    assert read_fields(block) == [("A", "1 2"), ("B", "ä"), ("C", "ä"), ("a", "3")]


@given(st.binary(min_size=50, max_size=200))
def test_base64_comes_back_whatever_its_line_ends(body: bytes) -> None:
    assert decode_base64(base64.encodebytes(body).replace(b"\n", b"\r\n")) == body


@each_of(
    ("body", "charset", "expected"),
    [
        (b"\xc3\xa4", "utf-8", "ä"),
        (b"\xe4", "utf-8", "\ufffd"),
        (b"\xe4\x80", "iso-8859-1", "ä€"),
        (b"\xc3\xa4", "us-ascii", "ä"),
        (b"\xc3\xa4", "", "ä"),
        (b"\x82\xa0", "shift_jis", "あ"),
        (b"a\x00", "utf-16-le", "a"),
        (b"x", "../../etc", "x"),
        (b"x", "no\x00such", "x"),
    ],
)
def test_charsets(body: bytes, charset: str, expected: str) -> None:
    assert decode_text(body, charset) == expected


@given(st.text(alphabet="=?*'\";:,()<>[]\\ \tabqQB@%.8-ü\ud800\x00", max_size=80))
def test_nothing_raises_and_all_text_can_be_sent(value: str) -> None:
    raw = value.encode("utf-8", "surrogatepass")
    for _, text in read_fields(b"X: " + raw + b"\r\n"):
        texts = [decode_words(text), *read_parameters(raw)[1].values()]
        texts += [part for contact in pairs(text) for part in contact]
        "".join(texts).encode("utf-8")


def test_the_numbers_of_fields_and_addresses_are_bounded() -> None:
    assert len(read_fields(b"a:b\r\n" * (MAX_FIELDS * 3))) == MAX_FIELDS
    assert len(read_addresses("a@b," * (MAX_ADDRESSES * 3))) == MAX_ADDRESSES


def test_what_a_message_is_stands_behind_many_fields() -> None:
    block = b"a:b\r\n" * (MAX_FIELDS * 3) + b"Subject: last\r\nx:y\r\nFrom: a@x.test\r\n"
    assert read_fields(block)[MAX_FIELDS:] == [("Subject", "last"), ("From", "a@x.test")]


def test_a_folded_field_takes_little_memory() -> None:
    block = b"X: y\r\n" + b" z\r\n" * 200_000
    with peak_bytes() as peak:
        assert len(read_fields(block)[0][1]) == 400_001
    assert peak() < 10 * len(block)


@each_of(
    "bomb",
    ["=?utf-8?b?" + "A" * 10**6, "=?" * 10**6, "=?a?q?" * 10**5, "(" * 10**6, "<" * 10**6,
     '"' * 10**6, "\\" * 10**6, ';a="' * 10**5, ";" + " " * 10**6, "a " * 10**6, "[" * 10**6],
)  # fmt: skip
def test_values_built_to_be_expensive_are_read(bomb: str) -> None:
    decode_words(bomb)
    read_addresses(bomb)
    read_parameters(bomb.encode())
