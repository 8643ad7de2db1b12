from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from relaygw.settings.addresses import Address, Entry, Host, Pattern, entry_matches
from tests.tables import each_of

ENTRY = TypeAdapter(Entry)
PATTERN = TypeAdapter(Pattern)


@pytest.mark.parametrize("text", ["dev@a.test", "@a.test", "www-data@web_1", "ü@ü.test", "a%b@c"])
def test_entries(text: str) -> None:
    assert ENTRY.validate_python(text) == text
    assert PATTERN.validate_python(text) == text


@each_of(
    "text",
    [
        "",
        "@",
        "a.test",
        ".a.test",
        "dev@",
        "a@b@c",
        "@a..test",
        "@.a.test",
        "@a.test.",
        "dev @a.test",
        "dev@a.test\n",
        "dev@a.test\0",
        "<dev@a.test>",
        "Dev <dev@a.test>",
        '"a b"@a.test',
        "dev@[127.0.0.1]",
        "dev@*.test",
        ".dev@a.test",
        "-oQ@a.test",
        "=?utf-8?q?x?=@a.test",
        f"dev@{'x' * 64}.test",
        "a@-b.test",
        "x" * 65 + "@a.test",
    ],
)
def test_what_could_be_read_in_two_ways_is_no_entry(text: str) -> None:
    with pytest.raises(ValidationError):
        ENTRY.validate_python(text)


def test_a_pattern_may_mean_a_domain_and_all_below() -> None:
    assert PATTERN.validate_python(".a.test") == ".a.test"


@pytest.mark.parametrize("text", ["mail.internal:25", "smtp://a.test", "a b", "", "[::1]"])
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Host).validate_python(text)


def test_a_domain_alone_is_no_address() -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Address).validate_python("@a.test")


@each_of(
    ("entry", "address", "expected"),
    [
        ("dev@a.test", "dev@a.test", True),
        ("dev@a.test", "DEV@A.TEST", True),
        ("dev@a.test", "dev+x@a.test", False),
        ("@a.test", "anyone@A.test", True),
        ("@a.test", "x@b.a.test", False),
        ("@a.test", "x@ba.test", False),
        ("@a.test", "victim%other.test@a.test", False),
        ("@a.test", "other.test!victim@a.test", False),
        ("@a.test", '"victim@other.test"@a.test', False),
        ("@a.test", "x@a.test@evil.test", False),
        ("@a.test", "a.test", False),
        # a legal local part that stands for itself
        ("*@a.test", "dev@a.test", False),
        ("ü@a.test", "Ü@a.test", False),
        ("@k.test", "x@\u212a.test", False),
    ],
)
def test_an_entry_matches_no_more_than_it_says(entry: str, address: str, expected: bool) -> None:
    assert entry_matches(entry, address) is expected
