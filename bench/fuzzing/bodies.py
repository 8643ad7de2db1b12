"""What stands behind 354: content with its dots, and what mail is smuggled with."""

from __future__ import annotations

import random

from bench.fuzzing.profiles import LIMIT_BYTES

END = b"\r\n.\r\n"
_EVIL = b"MAIL FROM:<evil@x.test>\r\nRCPT TO:<r@rd.test>\r\nDATA\r\nX\r\n.\r\n"
_ENDS = (
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\r\n.\0\r\n",
    b"\r\n.\r\r\n", b"\r\n..\r\n", b"\r\n. \r\n", b"\n\r.\r\n", b"\r\n.\r\n",
)  # fmt: skip
_HEADERS = (
    b"Subject: t\r\n\r\n",
    b"Subject: =?utf-8?b?%%%?=\r\nFrom: a@b.test\r\nTo: c@d.test\r\n\r\n",
    b"Date: Sat, 28 Nov 2026 10:00:00 +0000\r\n"
    b"Message-ID: <m@ok.test>\r\nSubject:\r\n folded\r\n\r\n",
    b"From x@y.test Mon\r\nSubject: t\r\n\r\n",
    b": novalue\r\nX\r\n\r\n",
    b"Subject: \xff\xfe\0\r\n\r\n",
    b"\r\n",
    b"",
    b"Received: hop\r\n" * 49 + b"\r\n",
    b"Received: hop\r\n" * 60 + b"\r\n",
    b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n",
)  # fmt: skip
_TEXTS = (
    b"text", b"\r\n", b"\r\n", b".", b"..", b"\r\n.x", b"\r\n..", b"\r", b"\n", b"\0", b"\x80\xff",
    b"\r\r\n", b"\n\r", b"l" * 998, b"l" * 1500, b"abc.", b"\r\n...three", b"\r\n\r\n", b"\x1a\x08",
)  # fmt: skip


def body(chance: random.Random) -> bytes:
    """Return content up to its final dot, as a client writes it."""
    parts = [chance.choice(_HEADERS)]
    kind = chance.random()
    if kind < 0.3:
        parts += [b"A", chance.choice(_ENDS), _EVIL]
    elif kind < 0.34:
        line = chance.choice((b"x" * 76 + b"\r\n", b"\r\n", b".." + b"y" * 70 + b"\r\n"))
        parts += [line * (LIMIT_BYTES // len(line) + chance.choice((-9, 0, 1, 900)))]
    elif kind < 0.36:
        size_bytes = LIMIT_BYTES - len(parts[0]) + chance.choice((-4, -3, -2, -1, 0, 1))
        parts += [b"x" * size_bytes]
    else:
        parts += chance.choices(_TEXTS, k=chance.randrange(12))
    whole = b"".join(parts)
    if chance.random() < 0.05:
        return whole  # and no end
    return (whole if whole.endswith(b"\r\n") or not whole else whole + b"\r\n") + b".\r\n"
