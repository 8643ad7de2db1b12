"""Type and size of pictures by their first bytes."""

from __future__ import annotations

import struct
import time

from hypothesis import given
from hypothesis import strategies as st

from relaygw.web.mail.preview import picture_size
from tests.e2e.browser.attachments import png_bomb
from tests.e2e.browser.letters import png
from tests.tables import each_of

GIF_HEAD = b"GIF89a" + struct.pack("<HHBBB", 3, 2, 0x80, 0, 0) + bytes(6)
GIF_FRAME = b"\x2c" + struct.pack("<HHHHB", 0, 0, 3, 2, 0)
PICTURES = {
    "png": (png(40, 30, (1, 2, 3)), ("image/png", 40, 30)),
    "png of a bomb": (png_bomb(), ("image/png", 60_000, 60_000)),
    "gif": (GIF_HEAD + b"\x21\xf9\x04\0\0\0\0\0" + GIF_FRAME, ("image/gif", 3, 2)),
    "gif with a frame larger than its screen": (
        GIF_HEAD + b"\x2c" + struct.pack("<HHHHB", 1, 0, 60_000, 50_000, 0),
        ("image/gif", 60_001, 50_000),
    ),
    "jpeg": (
        b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(10) + b"\xff\xff\xc2\0\x11\x08\0\x07\0\x09",
        ("image/jpeg", 9, 7),
    ),
    "webp": (b"RIFF\0\0\0\0WEBPVP8 " + bytes(10) + b"\x05\x40\x06\0", ("image/webp", 5, 6)),
    "webp, lossless": (
        b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + struct.pack("<I", 4 | 5 << 14), ("image/webp", 5, 6)
    ),
    "webp, extended": (
        b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + b"\x04\0\0\x05\0\0", ("image/webp", 5, 6)
    ),
    "bmp": (b"BM" + bytes(12) + struct.pack("<Iii", 40, 5, -6), ("image/bmp", 5, 6)),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", None),
    "html": (b"<html>", None),
    "gif and script": (b"GIF89a/*" + bytes(6) + b"*/=1;alert(1)", None),
    "tiff": (b"II*\0", None),
    "nothing": (b"", None),
}  # fmt: skip


@each_of("name", PICTURES)
def test_kinds(name: str) -> None:
    body, expected = PICTURES[name]
    assert picture_size(body) == expected


def test_filling_bytes_cost_little() -> None:
    started = time.process_time()
    assert picture_size(b"\xff\xd8" + b"\xff" * 8_000_000) is None
    assert time.process_time() - started < 0.3


@given(
    st.sampled_from([body for body, _ in PICTURES.values()]),
    st.integers(0, 60),
    st.binary(max_size=40),
)
def test_what_is_cut_or_broken_never_raises(body: bytes, length: int, more: bytes) -> None:
    picture_size(body[:length] + more)
