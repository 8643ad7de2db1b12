"""The parts of a message as its page lists them, and as a browser gets them: to be saved only."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import quote

from starlette.responses import Response

from relaygw.web import words
from relaygw.web.gate.guards import STRICT_HEADERS
from relaygw.web.mail.mime_header import decode_words
from relaygw.web.mail.mime_tree import MimeTree, Part
from relaygw.web.sandbox.message_view import file_name_of, filed_parts

MAX_LISTED_PARTS = 200
MAX_PICTURE_BYTES = 2 * 2**20  # of one picture in its HTML
MAX_PICTURES_BYTES = 8 * 2**20  # of all of them

_PICTURES = frozenset(
    {"image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp", "image/avif",
     "image/svg+xml"}
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PartLine:
    """A part in the list of parts."""

    part_id: str
    name: str
    content_type: str
    size: str
    is_inline: bool


def part_lines(tree: MimeTree) -> list[PartLine]:
    """Return attachments, then inline parts."""
    inline, attachments = filed_parts(tree)
    return [
        *(_line(tree, part, is_inline=False) for part in attachments),
        *(_line(tree, part, is_inline=True) for part in inline),
    ]


def _line(tree: MimeTree, part: Part, *, is_inline: bool) -> PartLine:
    return PartLine(
        part_id=part.part_id,
        name=file_name_of(part),
        content_type=part.content_type,
        size=words.size(_decoded_bytes(tree, part)),
        is_inline=is_inline,
    )


def _decoded_bytes(tree: MimeTree, part: Part) -> int:
    """Return about how large a part is; nothing is decoded for that."""
    raw = part.end - part.start
    if part.encoding != "base64":
        return raw
    letters = raw - 2 * tree.content.count(b"\r\n", part.start, part.end)
    padding = tree.content.count(b"=", max(part.start, part.end - 4), part.end)
    return max(0, letters * 3 // 4 - padding)


def part_response(tree: MimeTree, part_id: str) -> Response | None:
    """Return a part as a file to be saved, whatever it says it is; None if there is none."""
    part = next((one for one in tree.leaves if one.part_id == part_id), None)
    if part is None:
        return None
    return Response(
        tree.body(part), media_type="application/octet-stream", headers=saved_headers(part)
    )


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
