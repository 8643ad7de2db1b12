"""Address lists: what is read, what is left out, and that nothing is ever invented."""

from __future__ import annotations

from email import utils
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from relaygw.mail.address import check_address
from relaygw.mail.address_list import read_addresses
from tests.tables import each_of

CLEAN = [
    ("", []),
    ("root", ["root"]),
    ("a@x.test", ["a@x.test"]),
    ("<a@x.test>", ["a@x.test"]),
    ("a@x.test, b@y.test", ["a@x.test", "b@y.test"]),
    (" ,a@x.test,, b@y.test, ", ["a@x.test", "b@y.test"]),
    ("Ann <a@x.test>, Bob B. <b@y.test>", ["a@x.test", "b@y.test"]),
    ('"Doe, John <x@evil.test>" <a@x.test>', ["a@x.test"]),
    (r'"a \" b, <x@evil.test>" <a@x.test>', ["a@x.test"]),
    ("Ann\r\n <a@x.test>,\r\n\tb@y.test\r\n", ["a@x.test", "b@y.test"]),
    ("a@x.test (Ann, <x@evil.test>)", ["a@x.test"]),
    (r"a@x.test (one (two \) three) four)", ["a@x.test"]),
    ("(before) a@x.test", ["a@x.test"]),
    ("a(one)@(two)x.test", ["a@x.test"]),
    ("a @ x . test", ["a@x.test"]),
    ("undisclosed-recipients:;", []),
    ("undisclosed-recipients: ;", []),
    ("team: a@x.test, b@y.test;", ["a@x.test", "b@y.test"]),
    ("g: a@x, b@y;", ["a@x", "b@y"]),
    ("one: a@x.test;, two: Bob <b@y.test>;, c@z.test", ["a@x.test", "b@y.test", "c@z.test"]),
    ('"team, two": a@x.test;', ["a@x.test"]),
    ("<@a.test,@b.test:c@d.test>", ["c@d.test"]),
    ("Ann <@a.test:c@d.test>", ["c@d.test"]),
    ('"a b"@x.test', ['"a b"@x.test']),
    ('<"a,b"@x.test>, c@y.test', ['"a,b"@x.test', "c@y.test"]),
    (r'"a\"@b"@x.test', [r'"a\"@b"@x.test']),
    ("a@[192.0.2.1]", ["a@[192.0.2.1]"]),
    ("a@[IPv6:2001:db8::1]", ["a@[IPv6:2001:db8::1]"]),
    ("=?UTF-8?Q?M=C3=BCller?= <a@x.test>", ["a@x.test"]),
    ("=?utf-8?q?Doe,_J_<x@evil.test>?= <a@x.test>", ["a@x.test"]),
    ("=?utf-8?b?w6Q=?=\r\n =?utf-8?b?w7Y=?= <a@x.test>, b@y.test", ["a@x.test", "b@y.test"]),
    ("shop@x.test <shop@x.test>", ["shop@x.test"]),
    ("Käse <a@x.test>", ["a@x.test"]),
    ("käse@x.test", ["käse@x.test"]),
    ("a..b@x.test", ["a..b@x.test"]),
    ("x%other.test@x.test, o!x", ["x%other.test@x.test", "o!x"]),
    ("a@x.test; b@y.test", ["a@x.test", "b@y.test"]),
    ("Ann <root>", ["root"]),
]
UNCLEAN = [
    ("a@x.test b@y.test", ["a@x.test", "b@y.test"]),
    ("Ann <a@x.test> Bob <b@y.test>", ["a@x.test", "b@y.test"]),
    ("<a@x.test><b@y.test>", ["a@x.test", "b@y.test"]),
    ("<a@x.test> trailing", ["a@x.test"]),
    ("<a@x.test, b@y.test", ["a@x.test", "b@y.test"]),
    ("Ann <a@x.test", ["a@x.test"]),
    ("a@x.test>", ["a@x.test"]),
    ("a>@x.test", []),
    ("a@x.test (open, b@y.test", ["a@x.test"]),
    ("Ann a@x.test", ["a@x.test"]),
    ("John Doe", []),
    ('"John Doe"', []),
    ("<>", []),
    ("b@y.test, <>", ["b@y.test"]),
    ("a@x.test, @, b@y.test", ["a@x.test", "b@y.test"]),
    ("a@x.test@y.test", []),
    ("@x.test", []),
    ("a@", []),
    ('b@y.test, "open <a@x.test>', ["b@y.test"]),
    ("b@y.test, (open a@x.test", ["b@y.test"]),
    ("b@y.test, a@[open", ["b@y.test"]),
    ("-f@x.test, a@x.test", ["a@x.test"]),
    ("-t", []),
    ("<a b@x.test>", []),
    ('a"b"@x.test', []),
    ("a\x00@x.test, b@y.test", ["b@y.test"]),
    ("x@=?utf-8?q?x=2Etest?=", []),
    ("=?utf-8?q?a=0d=0aRCPT?=@x.test", []),
    ("=?utf-8?q?only a name?=", []),
    (r"a\@x.test", []),
]


def read(value: str) -> tuple[list[str], bool]:
    addresses, is_clean = read_addresses(value.encode())
    return [address.decode() for address in addresses], is_clean


@each_of(("value", "expected"), CLEAN)
def test_clean_lists(value: str, expected: list[str]) -> None:
    assert read(value) == (expected, True)


@each_of(("value", "expected"), UNCLEAN)
def test_of_others_what_can_be_read_is_used(value: str, expected: list[str]) -> None:
    assert read(value) == (expected, False)


def test_bytes_that_are_not_utf_8() -> None:
    assert read_addresses(b"j\xff@x.test, K\xe4se <a@x.test>") == ([b"a@x.test"], False)


# values that the standard library reads differently, and wrongly
_OURS = ("=?utf-8?q?", "a @ x", "<@a.test,", "; b@y", "team, two", "a(one)", "x%other", "shop@x")


@each_of(
    "value", [value for value, _ in CLEAN if value and not any(part in value for part in _OURS)]
)
def test_the_standard_library_reads_the_same(value: str) -> None:
    unfolded = value.replace("\r\n", "")
    # the strict way of later versions drops whatever it finds doubtful
    lenient: dict[str, Any] = {"strict": False} if hasattr(utils, "supports_strict_parsing") else {}
    theirs = [address for _, address in utils.getaddresses([unfolded], **lenient) if address]
    assert read(value)[0] == theirs


@given(st.text(alphabet='ab@x.<>,:;()"[]\\=?utf-8Q \t\r\n-é\x00', max_size=60))
def test_every_address_stands_in_the_value(value: str) -> None:
    addresses, _ = read(value)
    squeezed = "".join(value.split())
    for address in addresses:
        assert not address.startswith("-")
        assert address.isprintable()
        local, _, domain = address.rpartition("@") if "@" in address else (address, "", "")
        assert domain.count("@") == 0
        assert "(" in value or "".join(address.split()) in squeezed
        assert local


@given(
    st.lists(
        st.sampled_from(["a", "x@y", ",", ", ", ",\r\n\t", "-", "=?", "@", " ", "\v", "b" * 600])
    )
)
def test_a_plain_list_is_read_as_one_that_is_not(parts: list[str]) -> None:
    value = "".join(parts).encode()
    assert read_addresses(value) == read_addresses(value + b",(no plain one)")


@given(st.binary(max_size=200))
def test_no_bytes_break_it(value: bytes) -> None:
    read_addresses(value)


_WORD = st.text(alphabet="abcXYZ019_+", min_size=1, max_size=8)
_ADDRESS = st.builds(lambda local, host: f"{local}@{host}.test", _WORD, _WORD)
_NAME = st.text(alphabet="ab <>,:;()@é", max_size=10)


@st.composite
def _mailbox(draw: st.DrawFn) -> tuple[str, str]:
    address, name = draw(_ADDRESS), draw(_NAME)
    blank = draw(st.sampled_from(["", " ", "\r\n ", " (note, <x@evil.test>) "]))
    written = draw(
        st.sampled_from(
            [address, f"<{address}>", f'"{name}"{blank}<{address}>', f"{blank}{address}{blank}"]
        )
    )
    return written, address


@given(st.lists(_mailbox(), max_size=6), st.booleans())
def test_what_was_written_is_read(mailboxes: list[tuple[str, str]], is_group: bool) -> None:
    value = ",".join(written for written, _ in mailboxes)
    if is_group:
        value = f"group: {value};"
    expected = [address for _, address in mailboxes]
    assert read(value) == (expected, True)
    for address in expected:
        if "_" not in address.partition("@")[2] and "+" not in address.partition("@")[2]:
            check_address(address)  # the front takes it
