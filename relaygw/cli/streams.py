"""The three streams of a command, also where its caller left one of them closed.

A closed stream is None to Python: what is printed would be lost without a word, and the next file
that is opened would be in its place.
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import Literal, TextIO

_STDIN, _STDOUT, _STDERR = range(3)


def open_streams() -> None:
    """Make stdin and stdout raise OSError (EBADF) where they are closed; stderr swallows."""
    # in their order, so that each gets its own number
    sys.stdin = sys.stdin or _stand_in(_STDIN, os.O_WRONLY, "r")
    sys.stdout = sys.stdout or _stand_in(_STDOUT, os.O_RDONLY, "w")
    sys.stderr = sys.stderr or _stand_in(_STDERR, os.O_WRONLY, "w")
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # a letter that the terminal or the input's encoding lacks is a question mark
            stream.reconfigure(errors="replace")


def _stand_in(number: int, flags: int, mode: Literal["r", "w"]) -> TextIO:
    nowhere = os.open(os.devnull, flags)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
    return open(number, mode, closefd=False)


def leave_stdout() -> None:
    """Point stdout nowhere: Python writes the rest of it once more when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    except OSError:  # not a stream of the system
        pass
    finally:
        os.close(nowhere)
