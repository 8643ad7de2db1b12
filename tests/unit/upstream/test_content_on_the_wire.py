"""Outgoing content: stuffed, folded, ended once, however it is cut."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.mail.content import MAX_LINE_BYTES, normalise_line_ends
from relaygw.upstream.protocol import ContentEncoder

PIECES = st.sampled_from([b"\r\n", b"\r", b"\n", b".", b" ", b"a", b"\xc3\xa9", b"x" * 997, b".."])
CONTENT = st.lists(PIECES, max_size=40).map(b"".join)


def encode_cut(content: bytes, cuts: list[int], *, fold: bool) -> bytes:
    encoder = ContentEncoder(fold=fold)
    edges = [0, *sorted(cut % (len(content) + 1) for cut in cuts), len(content)]
    pieces = [content[a:b] for a, b in pairwise(edges)]
    return b"".join([encoder.encode(piece) for piece in pieces]) + encoder.finish()


def encode_whole(content: bytes, *, fold: bool) -> bytes:
    return encode_cut(content, [], fold=fold)


def unstuff(wire: bytes) -> bytes:
    assert wire.endswith(b".\r\n")
    return re.sub(rb"(?m)^\.", b"", wire[:-3])


@given(CONTENT, st.lists(st.integers(0, 5000), max_size=8), st.booleans())
def test_any_cut_gives_the_same_bytes(content: bytes, cuts: list[int], fold: bool) -> None:
    assert encode_cut(content, cuts, fold=fold) == encode_whole(content, fold=fold)


@given(CONTENT)
def test_unstuffing_gives_the_content(content: bytes) -> None:
    whole = normalise_line_ends(content)
    expected = whole if not whole or whole.endswith(b"\r\n") else whole + b"\r\n"
    assert unstuff(encode_whole(content, fold=False)) == expected


@given(CONTENT, st.booleans())
def test_ends_once_and_has_no_bare_line_end(content: bytes, fold: bool) -> None:
    wire = b"\r\n" + encode_whole(content, fold=fold)
    assert wire.count(b"\r\n.\r\n") == 1
    assert wire.endswith(b"\r\n.\r\n")
    assert wire.count(b"\n") == wire.count(b"\r") == wire.count(b"\r\n")


@given(CONTENT)
def test_folding_keeps_lines_short_and_characters_whole(content: bytes) -> None:
    folded = unstuff(encode_whole(content, fold=True))
    lines = folded.split(b"\r\n")
    assert max(map(len, lines)) <= MAX_LINE_BYTES
    assert not any(line.startswith(b" \xa9") for line in lines)


@pytest.mark.parametrize("length", [997, 998, 999, 1995, 1996, 5000, 100_000])
def test_folds_as_postfix_does(length: int) -> None:
    line = b"x" * length
    folded = unstuff(encode_whole(b"a\r\n" + line + b"\r\nb\r\n", fold=True))
    first, *rest = folded.removeprefix(b"a\r\n").removesuffix(b"\r\nb\r\n").split(b"\r\n")
    assert len(first) == min(length, 998)
    assert all(part.startswith(b" ") for part in rest)
    assert first + b"".join(part[1:] for part in rest) == line


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"", b".\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b"a\r\n.\r\nb\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b"a\r", b"a\r\n.\r\n"),
        (b"a\n.\nMAIL FROM:<x>\n", b"a\r\n..\r\nMAIL FROM:<x>\r\n.\r\n"),
        (b"a\r.\r\n", b"a\r\n..\r\n.\r\n"),
    ],
)
def test_encodes(content: bytes, wire: bytes) -> None:
    assert encode_whole(content, fold=False) == wire
    assert encode_whole(content, fold=True) == wire
