"""The From field of a message that came without one."""

from __future__ import annotations

_MAX_WORD_BYTES = 75  # of an encoded word, RFC 2047 section 2
_START, _END = b"=?utf-8?q?", b"?="
_PLAIN = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!*+-/"  # section 5 (3)


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
    words = _encoded_words(full_name.decode("utf-8", "replace"))
    return b"From: %s <%s>" % ((line_end + b" ").join(words), address)


def _encoded_words(text: str) -> list[bytes]:
    """Return `text` as encoded words that never split a character."""
    words = [b""]
    for character in text:
        encoded = b"".join(_encode_byte(byte) for byte in character.encode())
        if len(_START) + len(words[-1]) + len(encoded) + len(_END) > _MAX_WORD_BYTES:
            words.append(b"")
        words[-1] += encoded
    return [_START + word + _END for word in words]


def _encode_byte(byte: int) -> bytes:
    if byte == 0x20:
        return b"_"
    return b"%c" % byte if byte in _PLAIN else b"=%02X" % byte
