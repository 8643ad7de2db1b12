"""Draws the first pages of a PDF: run as a program of its own, which can do nothing else.

Reads the file from standard input and writes to standard output the number of pages, then each
picture: its length and a PNG. Before the first byte is read it has no more memory, time and files
than it needs, no right to open another file or connection, and no children.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys
import zlib
from typing import Any

MAX_PAGES = 3
MAX_MEMORY_BYTES = 640 * 2**20
MAX_CPU_S = 8
_WIDTH = 900
_PIXELS = 1_500_000
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
ENCRYPTED = 3  # the exit status for a file with a password


def main() -> int:
    """Draw, and return the exit status."""
    _confine()
    import pypdfium2

    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))  # none may be opened from here on
    body = sys.stdin.buffer.read()
    try:
        document = pypdfium2.PdfDocument(body)
    except pypdfium2.PdfiumError as error:
        return ENCRYPTED if "password" in str(error).lower() else 1
    out = sys.stdout.buffer
    out.write(struct.pack(">I", len(document)))
    for number in range(min(len(document), MAX_PAGES)):
        picture = _draw(document[number])
        out.write(struct.pack(">I", len(picture)) + picture)
        out.flush()
    return 0


def _confine() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0)
    libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)  # no network, where this is permitted
    for limit, value in (
        (resource.RLIMIT_AS, MAX_MEMORY_BYTES),
        (resource.RLIMIT_CPU, MAX_CPU_S),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(limit, (value, value))
    with contextlib.suppress(OSError):
        os.nice(10)


def _draw(page: Any) -> bytes:
    width, height = page.get_size()
    scale = min(_WIDTH / max(width, 1), (_PIXELS / max(width * height, 1)) ** 0.5)
    bitmap = page.render(
        scale=scale, rev_byteorder=True, may_draw_forms=False, force_bitmap_format=2
    )
    row, stride, pixels = bitmap.width * 3, bitmap.stride, bytes(bitmap.buffer)
    rows = (pixels[start : start + row] for start in range(0, stride * bitmap.height, stride))
    head = struct.pack(">IIBBBBB", bitmap.width, bitmap.height, 8, 2, 0, 0, 0)
    lines = zlib.compress(b"".join(b"\0" + line for line in rows), 6)
    chunks = ((b"IHDR", head), (b"IDAT", lines), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)
