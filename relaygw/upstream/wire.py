"""Content as it goes over the wire: CRLF line ends, folded lines, stuffed dots, final dot.

Pure and streaming: any way of cutting the content into chunks gives the same bytes. Stored
content is normalised already; the encoder repairs bare CR and LF all the same, because one that
got through could end a message early at the provider and start a forged one.
RFC 5321 sections 4.5.2 (transparency) and 4.5.3.1.6 (line length, which does not count the dot
that stuffing adds).
"""

from __future__ import annotations

from relaygw.mail.content import MAX_LINE_BYTES, normalise_line_ends


def encode_whole(content: bytes, *, fold: bool) -> bytes:
    """Return all that follows the 354 reply for `content`, final dot included."""
    encoder = ContentEncoder(fold=fold)
    body = encoder.encode(content)
    return body + encoder.finish()


class ContentEncoder:
    """Turns chunks of one message's content into wire bytes.

    `fold` breaks lines over 998 octets by CRLF and a space, as Postfix does, never inside a
    UTF-8 character. Leave it off when no line is that long: it walks line by line.
    """

    def __init__(self, *, fold: bool) -> None:
        self._fold = fold
        self._held = b""  # a CR that may be half a CRLF, or the unfinished line while folding
        self._at_line_start = True

    def encode(self, chunk: bytes) -> bytes:
        """Return wire bytes for `chunk`, less what cannot be decided yet."""
        content = self._held + chunk if self._held else chunk
        if content.endswith(b"\r"):
            content, self._held = content[:-1], b"\r"
        else:
            self._held = b""
        if not content:
            return b""
        content = normalise_line_ends(content)
        if self._fold:
            content = self._fold_lines(content)
        return self._stuff(content)

    def finish(self) -> bytes:
        """Return what is left, and the line with the final dot."""
        last = b"\r\n" if self._held.endswith(b"\r") else b""
        line = self._held.removesuffix(b"\r") + last
        tail = self._stuff(line)
        return (tail if self._at_line_start else tail + b"\r\n") + b".\r\n"

    def _stuff(self, content: bytes) -> bytes:
        if not content:
            return content
        stuffed = content.replace(b"\r\n.", b"\r\n..")
        if self._at_line_start and content.startswith(b"."):
            stuffed = b"." + stuffed
        self._at_line_start = content.endswith(b"\r\n")
        return stuffed

    def _fold_lines(self, content: bytes) -> bytes:
        *lines, rest = content.split(b"\r\n")
        pieces: list[bytes] = []
        for line in lines:
            pieces.extend(_split_line(line))
        # the unfinished line stays here, so that where it breaks does not depend on chunks
        *whole, rest = _split_line(rest)
        pieces.extend(whole)
        self._held = rest + self._held
        return b"".join([piece + b"\r\n" for piece in pieces])


def _split_line(line: bytes) -> list[bytes]:
    """Return `line` in pieces of at most MAX_LINE_BYTES; all but the first begin with a space."""
    if len(line) <= MAX_LINE_BYTES:
        return [line]
    pieces = []
    start, indent = 0, b""
    while len(line) - start > MAX_LINE_BYTES - len(indent):
        end = _character_start(line, start + MAX_LINE_BYTES - len(indent))
        pieces.append(indent + line[start:end])
        start, indent = end, b" "
    pieces.append(indent + line[start:])
    return pieces


def _character_start(line: bytes, position: int) -> int:
    """Return the nearest place at or before `position` that is not inside a UTF-8 character."""
    for place in range(position, position - 4, -1):
        if line[place] & 0xC0 != 0x80:
            return place
    return position
