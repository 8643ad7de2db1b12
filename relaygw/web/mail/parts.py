"""Parts of a message: names to save them under, lines of a list, pictures for its HTML."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from relaygw.web import words
from relaygw.web.gate.guards import STRICT_HEADERS
from relaygw.web.mail.mime_header import decode_words
from relaygw.web.mail.mime_tree import MimeTree, Part, filed_parts

_RESERVED_NAMES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"*:<>?|]+')

MAX_LISTED_PARTS = 200
MAX_PICTURE_BYTES = 2 * 2**20  # of one picture in its HTML
MAX_PICTURES_BYTES = 8 * 2**20  # of all of them

_PICTURES = frozenset(
    {"image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp", "image/avif",
     "image/svg+xml"}
)  # fmt: skip


def part_lines(tree: MimeTree) -> list[dict[str, Any]]:
    """Return attachments, then inline parts."""
    inline, attachments = filed_parts(tree)
    return [
        *(_line(tree, part, is_inline=False) for part in attachments),
        *(_line(tree, part, is_inline=True) for part in inline),
    ]


def _line(tree: MimeTree, part: Part, *, is_inline: bool) -> dict[str, Any]:
    return {
        "part_id": part.part_id,
        "name": file_name_of(part),
        "content_type": part.content_type,
        "size": words.size(_decoded_bytes(tree, part)),
        "is_inline": is_inline,
    }


def _decoded_bytes(tree: MimeTree, part: Part) -> int:
    """Return about how large a part is; nothing is decoded for that."""
    raw = part.end - part.start
    if part.encoding != "base64":
        return raw
    letters = raw - 2 * tree.content.count(b"\r\n", part.start, part.end)
    padding = tree.content.count(b"=", max(part.start, part.end - 4), part.end)
    return max(0, letters * 3 // 4 - padding)


def saved_headers(part: Part) -> dict[str, str]:
    """Return the fields that make a browser save a part under its name."""
    name = file_name_of(part)
    plain = name.encode("ascii", "replace").decode().replace("?", "_")
    return {
        "Content-Disposition": (
            f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
        ),
        # should a browser show it all the same, then without an origin and without scripts
        "Content-Security-Policy": STRICT_HEADERS["Content-Security-Policy"] + "; sandbox",
    }


def pictures_of(tree: MimeTree) -> Callable[[str], str | None]:
    """Return what gives the data: address of the picture with a Content-ID, within limits."""
    by_id = _by_content_id(tree.leaves)
    left_bytes = MAX_PICTURES_BYTES

    def picture(content_id: str) -> str | None:
        nonlocal left_bytes
        part = by_id.get(content_id)
        size_bytes = part.end - part.start if part is not None else 0
        if part is None or size_bytes > min(left_bytes, MAX_PICTURE_BYTES):
            return None
        left_bytes -= size_bytes
        body = base64.b64encode(tree.body(part)).decode()
        return f"data:{part.content_type};base64,{body}"

    return picture


def _by_content_id(parts: Iterable[Part]) -> dict[str, Part]:
    found: dict[str, Part] = {}
    for part in parts:
        if part.content_id and part.content_type in _PICTURES:
            found.setdefault(decode_words(part.content_id), part)
    return found


def file_name_of(part: Part) -> str:
    """Return a name that is safe to save under: no path, no control characters, not empty."""
    name = part.file_name or part.content_id
    name = re.split(r"[/\\]", _UNSAFE.sub("_", name))[-1].strip(" .")
    if len(name) > 120:
        stem, dot, ending = name.rpartition(".")
        name = stem[:100] + dot + ending[:19] if stem else name[:120]
    if _RESERVED_NAMES.match(name):
        name = f"_{name}"
    return name or f"part-{part.part_id}"
