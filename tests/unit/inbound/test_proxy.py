"""PROXY headers: the same client however the bytes are cut; rubbish is an error."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.inbound.proxy_header import BadHeader, ProxyHeaderReader
from tests.tables import each_of

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V4 = bytes((198, 51, 100, 7, 10, 0, 0, 1, 0, 80, 0, 25))


def v2(command: int = 0x21, family: int = 0x11, body: bytes = V4) -> bytes:
    return SIGNATURE + bytes((command, family)) + len(body).to_bytes(2, "big") + body


GOOD = [
    (b"PROXY TCP4 198.51.100.7 10.0.0.1 5000 25\r\n", "198.51.100.7"),
    (b"PROXY TCP6 2001:DB8::7 ::1 5000 25\r\n", "2001:db8::7"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    (v2(), "198.51.100.7"),
    (v2(body=V4 + b"\x04\x00\x01x"), "198.51.100.7"),
    (v2(family=0x21, body=bytes(15) + b"\x01" + bytes(20)), "::1"),
    (v2(command=0x20, family=0x00, body=b""), None),
    (v2(command=0x20, family=0x11), None),
    (v2(family=0x00, body=b"anything"), None),
]


def read(pieces: list[bytes]) -> tuple[str | None, bytes] | None:
    reader = ProxyHeaderReader()
    for number, piece in enumerate(pieces):
        found = reader.feed(piece)
        if found is not None:
            header, rest = found
            return header, rest + b"".join(pieces[number + 1 :])
    return None


@each_of(("raw", "client"), GOOD)
@each_of("rest", [b"", b"EHLO x\r\n", b"\x16\x03\x01", b"PROXY UNKNOWN\r\n"])
def test_a_header_however_it_is_cut(raw: bytes, client: str | None, rest: bytes) -> None:
    whole = raw + rest
    assert read([whole]) == (client, rest)
    assert read([bytes((byte,)) for byte in whole]) == (client, rest)
    for cut in range(1, len(raw)):
        assert read([raw[:cut]]) is None
        assert read([whole[:cut], whole[cut:]]) == (client, rest)


@given(st.binary(min_size=1, max_size=300), st.sampled_from([b"", b"PROXY TCP4 ", SIGNATURE]))
def test_rubbish_is_an_error_or_waits_for_more(raw: bytes, start: bytes) -> None:
    with contextlib.suppress(BadHeader):
        found = ProxyHeaderReader().feed(start + raw)
        assert found is None or isinstance(found[0], str | None)


@each_of(
    "raw",
    [
        b"PROXY  TCP4 198.51.100.7 10.0.0.1 5000 25\r\n",
        b"PROXY TCP4 198.51.100.7 10.0.0.1 5000\r\n",
        b"PROXY TCP4 198.51.100.7 10.0.0.1 5000 25 \r\n",
        b"PROXY TCP4 ::1 ::1 5000 25\r\n",
        b"PROXY TCP6 1.2.3.4 1.2.3.4 5000 25\r\n",
        b"PROXY UDP4 198.51.100.7 10.0.0.1 5000 25\r\n",
        b"proxy TCP4 198.51.100.7 10.0.0.1 5000 25\r\n",
        b"PROXY UNKNOWNX\x01\r\n",
        b"PROXY UNKNOWN " + b"x" * 107,
        b"POST / HTTP/1.1\r\n",
        v2(command=0x11),
        v2(command=0x22),
        v2(family=0x12),
        v2(family=0x21),
        v2(body=bytes(4000)),
    ],
)
def test_what_is_not_right_is_an_error(raw: bytes) -> None:
    with pytest.raises(BadHeader):
        read([raw])
    with pytest.raises(BadHeader):
        read([bytes((byte,)) for byte in raw])
