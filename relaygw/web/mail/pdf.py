"""The first pages of a PDF as pictures, drawn by a child process that can do nothing else."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Timer

from relaygw.web.mail.pdf_child import ENCRYPTED, MAX_PAGES

MAX_PDF_BYTES = 20_000_000
MAX_DRAWN_BYTES = 12 * 2**20  # of all pages
WALL_S = 15.0
_CHILD = Path(__file__).with_name("pdf_child.py")


@dataclass(frozen=True, slots=True)
class DrawnPages:
    """Pictures (PNG) of the first of `count` pages; `why` says why there are not more."""

    pictures: tuple[bytes, ...] = ()
    count: int = 0
    why: str = ""


def draw_pages(body: bytes) -> DrawnPages:
    """Draw the first pages of a PDF; never raises for what is in it. Blocks up to `WALL_S`."""
    if find_spec("pypdfium2") is None:
        return DrawnPages(why="pages of a PDF are shown once relaygw[pdf] is installed")
    if len(body) > MAX_PDF_BYTES:
        return DrawnPages(why=f"it is larger than {MAX_PDF_BYTES // 10**6} MB")
    drawn, status = _run(body)
    pictures, count = _split(drawn)
    if status == ENCRYPTED:
        why = "it has a password"
    elif status is None:
        why = f"rendering takes longer than {WALL_S:g} s"
    elif status != 0:
        why = "it is broken, or takes too much memory or time for a preview"
    else:
        why = ""
    return DrawnPages(pictures, count, why)


def _run(body: bytes) -> tuple[bytes, int | None]:
    """Return what the child wrote and its exit status, None for one that took too long."""
    is_late = False

    def end() -> None:
        nonlocal is_late
        is_late = True
        _kill(child)

    with subprocess.Popen(
        [sys.executable, "-I", "-B", str(_CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={},
        cwd="/",
        start_new_session=True,
    ) as child:
        timer = Timer(WALL_S, end)
        timer.start()
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            # the child reads all of it before it writes
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(body)
                child.stdin.close()
            drawn = child.stdout.read(MAX_DRAWN_BYTES + 1)
            if len(drawn) <= MAX_DRAWN_BYTES:
                with contextlib.suppress(ChildProcessError):
                    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        finally:
            # before it is waited for: then its number is no other process's
            timer.cancel()
            timer.join()
            _kill(child)
    return drawn, None if is_late else child.returncode


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End the child and all that it may have started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def _split(drawn: bytes) -> tuple[tuple[bytes, ...], int]:
    """Return the whole pictures of what a child wrote, and how many pages there are."""
    pictures: list[bytes] = []
    place = 4
    while place + 4 <= len(drawn) and len(pictures) < MAX_PAGES:
        (size,) = struct.unpack_from(">I", drawn, place)
        place += 4 + size
        if place > len(drawn):
            break
        pictures.append(drawn[place - size : place])
    count = struct.unpack_from(">I", drawn)[0] if len(drawn) >= 4 else 0
    return tuple(pictures), count
