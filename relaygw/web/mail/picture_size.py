"""What kind of picture bytes are and how large it is, by its first fields; nothing is decoded."""

from __future__ import annotations

import re
import struct

_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_MAX_BLOCKS = 10_000
_FILL = re.compile(rb"\xff*+")

Size = tuple[str, int, int]  # media type, width, height


def picture_size(body: bytes) -> Size | None:
    """Return type and pixels of a PNG, JPEG, GIF, WebP or BMP, None of anything else."""
    try:
        for start, read in _KINDS:
            if body.startswith(start):
                return read(body)
    except (struct.error, IndexError):
        pass  # it ends too early
    return None


def _png(body: bytes) -> Size | None:
    if body[12:16] != b"IHDR":
        return None
    return ("image/png", *struct.unpack_from(">II", body, 16))


def _gif(body: bytes) -> Size | None:
    """Take the larger of the screen and the first frame, as browsers do."""
    width, height, flags = struct.unpack_from("<HHB", body, 6)
    place = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    for _ in range(_MAX_BLOCKS):
        if body[place] == 0x2C:
            left, top, wide, high = struct.unpack_from("<HHHH", body, place + 1)
            return "image/gif", max(width, left + wide), max(height, top + high)
        if body[place] != 0x21:
            return None
        place += 2
        while body[place]:
            place += body[place] + 1
        place += 1
    return None


def _jpeg(body: bytes) -> Size | None:
    place = 2
    for _ in range(_MAX_BLOCKS):
        if body[place] != 0xFF:
            return None
        fill = _FILL.match(body, place)
        assert fill is not None
        place = fill.end() - 1
        if body[place + 1] in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", body, place + 5)
            return "image/jpeg", width, height
        place += 2 + struct.unpack_from(">H", body, place + 2)[0]
    return None


def _webp(body: bytes) -> Size | None:
    kind = body[8:16]
    if kind == b"WEBPVP8X":
        width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"WEBPVP8L" and body[20] == 0x2F:
        bits = struct.unpack_from("<I", body, 21)[0]
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"WEBPVP8 ":
        width, height = (one & 0x3FFF for one in struct.unpack_from("<HH", body, 26))
    else:
        return None
    return "image/webp", width, height


def _bmp(body: bytes) -> Size | None:
    if struct.unpack_from("<I", body, 14)[0] < 40:  # an old header, or none
        return None
    width, height = struct.unpack_from("<ii", body, 18)
    return "image/bmp", abs(width), abs(height)


_KINDS = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"GIF87a", _gif),
    (b"GIF89a", _gif),
    (b"\xff\xd8\xff", _jpeg),
    (b"RIFF", _webp),
    (b"BM", _bmp),
)
