"""The message on stdin: its end, its header, who it is for, and what may not go on.

All stays byte by byte but for three things: Bcc and Resent-Bcc fields go, a From field is
added where there is none, and an mbox separator at the start is dropped, all as Postfix does.
A bare CR ends a line here, too, because the front makes a line end of it.
"""

from __future__ import annotations

import posix

from relaygw.mail.address_list import read_addresses
from relaygw.mail.drop import MAX_CONTENT_BYTES, MAX_HEADER_BYTES
from relaygw.sendmail.arguments import EX_NOINPUT, EX_UNAVAILABLE, Failure, warn

_READ_BYTES = 256 * 1024
_DROPPED = (b"bcc", b"resent-bcc")
_RECIPIENTS = (b"to", b"cc", b"bcc")
_RESENT_RECIPIENTS = (b"resent-to", b"resent-cc", b"resent-bcc")
_FIELD_NAME = bytes(byte for byte in range(0x21, 0x7F) if byte != 0x3A)
_MAX_WORD_BYTES = 75  # of an encoded word, RFC 2047 section 2
_START, _END = b"=?utf-8?q?", b"?="
_PLAIN = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!*+-/"  # section 5 (3)


def read_input(*, stops_at_dot: bool) -> bytes:
    """Return the content on stdin, up to a line with a single dot if that is to end it.

    With `stops_at_dot` a line that starts with two dots loses one, as in SMTP.
    """
    received = bytearray(b"\n")  # so that the first line begins like every other
    while True:
        try:
            piece = posix.read(0, _READ_BYTES)
        except OSError as error:
            raise Failure(EX_NOINPUT, f"cannot read the message: {error.strerror}") from error
        seen = len(received)
        received += piece
        if len(received) > MAX_CONTENT_BYTES + 1:
            raise Failure(EX_UNAVAILABLE, f"message is over {MAX_CONTENT_BYTES} bytes")
        if stops_at_dot:
            end = _find_dot(received, seen - 3, is_all=not piece)
            if end >= 0:
                del received[end:]
                break
        if not piece:
            break
    del received[:1]
    content = bytes(received)
    if stops_at_dot:
        content = content[content.startswith(b"..") :]
        content = content.replace(b"\n..", b"\n.") if b"\n.." in content else content
    return content


def _find_dot(received: bytearray, start: int, *, is_all: bool) -> int:
    """Return where the dot that ends the message is, -1 if it has not come yet."""
    start = max(start, 0)
    places = [received.find(end, start) for end in (b"\n.\n", b"\n.\r\n")]
    if is_all and received.endswith((b"\n.", b"\n.\r")):
        places.append(received.rfind(b"\n."))
    return min((place + 1 for place in places if place >= 0), default=-1)


class Message:
    """The fields of a header, each with its name in lower case, and what follows them.

    Raises Failure for a header that the front does not take.
    """

    __slots__ = ("_content", "_fields", "_rest_at", "line_end")

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._fields: list[tuple[bytes, int, int]] = []  # name, start, end
        self.line_end = b"\n"
        self._rest_at = self._read_fields(self._skip_mbox_lines())

    def recipients(self) -> list[bytes]:
        """Return the addresses of To, Cc and Bcc, or of the Resent- ones if there are any."""
        names = {name for name, _, _ in self._fields}
        chosen = _RECIPIENTS if names.isdisjoint(_RESENT_RECIPIENTS) else _RESENT_RECIPIENTS
        found: list[bytes] = []
        for name, start, end in self._fields:
            if name in chosen:
                addresses, is_clean = read_addresses(self._content[start:end].partition(b":")[2])
                found += addresses
                if not is_clean:
                    shown = name.decode().title()
                    warn(f"{shown} field is not clean; the readable part was used")
        return found

    def has_field(self, name: bytes) -> bool:
        """True if the header has that field; `name` in lower case."""
        return any(name == found for found, _, _ in self._fields)

    def parts(self, added: bytes = b"") -> list[bytes | memoryview]:
        """Return header and body for the drop, with the field `added` (no line end) first."""
        header = [added + self.line_end] if added else []
        for name, start, end in self._fields:
            if name not in _DROPPED:
                header.append(self._content[start:end])
                if self._content[end - 1 : end] == b"\r":
                    header.append(b"\n")  # else it might join a LF that comes next
        rest = memoryview(self._content)[self._rest_at :]  # no second copy of a large body
        if rest and rest[0] not in b"\r\n":
            header.append(self.line_end)  # the header ended without an empty line
        return [b"".join(header), rest]

    def _skip_mbox_lines(self) -> int:
        at = 0
        while self._content[at : at + 1] in (b"F", b">"):
            end = self._line_end_behind(at)
            if not self._content[at:end].lstrip(b">").startswith(b"From "):
                break
            at = end
        return at

    def _read_fields(self, at: int) -> int:
        """Note the fields; return where the header is over."""
        end = self._line_end_behind(at)
        if self._content[at:end].endswith(b"\r\n"):
            self.line_end = b"\r\n"
        while name := _field_name(self._content[at:end]):
            start, at = at, end
            while self._content[at : at + 1] in (b" ", b"\t"):  # the field goes on
                at = self._line_end_behind(at)
            self._fields.append((name, start, at))
            if at > MAX_HEADER_BYTES:
                raise Failure(EX_UNAVAILABLE, f"its header is over {MAX_HEADER_BYTES} bytes")
            end = self._line_end_behind(at)
        return at

    def _line_end_behind(self, at: int) -> int:
        """Return where the line that starts at `at` is over, its line end included."""
        end = self._content.find(b"\n", at) + 1 or len(self._content)
        bare = self._content.find(b"\r", at, end)
        if bare < 0 or self._content[bare : bare + 2] == b"\r\n":
            return end
        return bare + 1


def _field_name(line: bytes) -> bytes:
    """Return the name in lower case, b"" if the line is no header field."""
    name, colon, _ = line.partition(b":")
    name = name.rstrip(b" \t")
    return name.lower() if colon and not name.translate(None, _FIELD_NAME) else b""


def compose_from(sender: bytes, full_name: bytes | None, line_end: bytes) -> bytes:
    """Return `From: "Full Name" <sender>` without a line end; `line_end` is for folding.

    The null sender writes as MAILER-DAEMON. The front completes names without a domain.
    """
    address = sender or b"MAILER-DAEMON"
    if not full_name:
        return b"From: " + address
    if full_name.isascii():
        quoted = full_name.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        return b'From: "%s" <%s>' % (quoted, address)
    words = [b""]
    for character in full_name.decode("utf-8", "replace"):  # no word splits one
        encoded = b"".join(
            b"_" if byte == 0x20 else b"%c" % byte if byte in _PLAIN else b"=%02X" % byte
            for byte in character.encode()
        )
        if len(_START) + len(words[-1]) + len(encoded) + len(_END) > _MAX_WORD_BYTES:
            words.append(b"")
        words[-1] += encoded
    return b"From: %s <%s>" % ((line_end + b" ").join(_START + w + _END for w in words), address)
