"""The text of a mail, for the content check."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

from relaygw.mail.mime_tree import MimeTree, Part, read_tree

MAX_CONTENT_BYTES = 256 * 1024
MAX_TEXT_CHARACTERS = 128 * 1024
_MAX_PARTS = 100
_READ_TYPES = ("text/", "message/", "multipart/")
_READ_DATA = ("/json", "/xml", "/x-pem-file", "/x-sh", "/sql", "/x-yaml")
_STYLE = re.compile(r"<(style|script)\b(?:[^<]++|<(?!/\1))*+", re.IGNORECASE)
_BREAK = re.compile(
    r"</?(?:br|p|div|tr|li|ul|ol|h[1-6]|table|blockquote|pre|title)\b[^<>]*+>", re.I
)
_CELL = re.compile(r"</?t[dh]\b[^<>]*+>", re.I)
_TAG = re.compile(r"<[/!a-z][^<>]*+>", re.I)
_SPACES = re.compile(r"  ++")
_LONG_NUMBER = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9a-fA-F]{8,});?")  # Python refuses very long ones
_ODD_BLANKS = (
    dict.fromkeys("\xa0\u2007\u2009\u202f\u2002\u2003", " ")
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\xad", "")
    | dict.fromkeys("\u2010\u2011\u2012\u2013", "-")
)


def texts_of(content: bytes, header_end: int, subject: str) -> Iterator[str]:
    """Yield the subject and the texts of a mail that are looked at, decoded."""
    content = content[: header_end + MAX_CONTENT_BYTES]
    tree = read_tree(content, max_parts=_MAX_PARTS, with_messages=True)
    left = MAX_TEXT_CHARACTERS
    yield subject
    for part in filter(_is_read, tree.leaves):
        text, _ = tree.text(part, limit_characters=left)
        left -= len(text)
        yield plain_text(_text_of_html(text) if _is_page(part, text) else text)
    around = _around(tree)[:left]
    if around:
        yield plain_text(around.decode("utf-8", "replace"))


def _is_read(part: Part) -> bool:
    return part.content_type.startswith(_READ_TYPES) or part.content_type.endswith(_READ_DATA)


def _is_page(part: Part, text: str) -> bool:
    return part.content_type.endswith("/html") or (
        part.content_type != "text/plain" and "</" in text
    )


def _around(tree: MimeTree) -> bytes:
    """Return the text around the parts, and the headers of attached messages."""
    pieces, position = [], tree.root.body_start if tree.parts else tree.root.end
    for part in tree.parts:
        pieces.append(tree.content[position : part.body_start if part.is_message else part.start])
        position = part.body_start if part.parts else part.end
    lines = b"".join((*pieces, tree.content[position:])).split(b"\r\n")
    delimiters = {b"", *(part.boundary.strip(b"-") for part in (tree.root, *tree.parts))}
    return b"\r\n".join(line for line in lines if line.strip(b"- \t") not in delimiters)


def _text_of_html(page: str) -> str:
    """Return the words of a page, a line for each block, and its addresses of the web gone."""
    text = " ".join(_STYLE.sub(" ", page).split())
    text = _TAG.sub("", _CELL.sub(" ", _BREAK.sub("\n", text)))
    text = _SPACES.sub(" ", text)
    return unescape(_LONG_NUMBER.sub(" ", text)) if "&" in text else text


def plain_text(text: str) -> str:
    """Return a text with the usual line ends and blanks."""
    text = text.replace("\r\n", "\n")
    if not text.isascii():
        for odd, usual in _ODD_BLANKS.items():
            if odd in text:
                text = text.replace(odd, usual)
    return text
