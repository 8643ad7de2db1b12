"""Texts of parts, cut before they are decoded: one sign outside of Latin makes each of them
four bytes in memory, so what is not shown is not decoded either.
"""

from __future__ import annotations

from relaygw.web.mail.mime_header import decode_text
from relaygw.web.mail.mime_tree import MimeTree, Part

_BYTES_A_CHARACTER = 4
# bytes of content for one decoded byte, with line ends; quoted-printable may be nothing but these
_RAW_BYTES = {"base64": 1.5, "quoted-printable": 4}


def cut_text(tree: MimeTree, part: Part, *, limit_characters: int) -> tuple[str, bool]:
    """Return a part as text of at most `limit_characters`, and whether there is more of it."""
    limit_bytes = limit_characters * _BYTES_A_CHARACTER
    raw_bytes = int(limit_bytes * _RAW_BYTES.get(part.encoding, 1))
    body = tree.body(part, limit_bytes=raw_bytes)
    text = decode_text(body[:limit_bytes], part.charset)
    is_cut = (
        part.end - part.start > raw_bytes or len(body) > limit_bytes or len(text) > limit_characters
    )
    return text[:limit_characters], is_cut
