"""Text for a terminal: columns, ages, sizes, and nothing that a terminal would obey; JSON lines.

Subjects, addresses and replies come from strangers; whatever is not printable becomes a
question mark. Widths are counted in terminal cells.
"""

from __future__ import annotations

import json
import shutil
import textwrap
import time
import unicodedata
from datetime import UTC, datetime

_UNITS_S = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_LABEL_WIDTH = 12
_SECOND_CELL = "\0"  # not printable, so it is in no text
DEFAULT_WIDTH = 80


def clock_ms() -> int:
    """Return the time of this machine."""
    return time.time_ns() // 1_000_000


def as_json(value: object) -> str:
    """Return one line of JSON in ASCII, which no terminal and no encoding can spoil."""
    return json.dumps(value, separators=(",", ":"))


def terminal_width() -> int:
    """Return $COLUMNS, else the terminal's width, else 80 (also in a pipe)."""
    return shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns


def printable(text: str) -> str:
    """Return `text` on one line without control, formatting and bidirectional signs."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _cells(sign: str) -> int:
    if unicodedata.combining(sign):
        return 0
    return 2 if unicodedata.east_asian_width(sign) in "WF" else 1


def cells(text: str) -> int:
    """Return how many terminal cells a text takes."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def fitted(text: str, width: int) -> str:
    """Return printable `text` in exactly `width` cells, cut with an ellipsis if it is longer."""
    text = printable(text)
    used = cells(text)
    if used > width:
        kept, used = "", 1
        for sign in text:
            if used + _cells(sign) > width:
                break
            kept += sign
            used += _cells(sign)
        text = kept + "…"
    return text + " " * (width - used)


def cut(text: str, max_cells: int) -> str:
    """Return printable `text` in at most `max_cells` cells, with an ellipsis if it is longer."""
    return printable(text) if cells(printable(text)) <= max_cells else fitted(text, max_cells)


def labelled(label: str, text: str, *, indent: int = 0, breaks_words: bool = False) -> str:
    """Return `label` and the text beside it, folded at the terminal's width.

    Long words stay whole, to be copied, unless `breaks_words`: strangers write very long ones.
    """
    lead = " " * indent + f"{label:<{_LABEL_WIDTH - indent}}"
    width = max(terminal_width(), 40)
    text = printable(text)
    if not text.isascii():
        text = "".join(sign + _SECOND_CELL * (_cells(sign) - 1) for sign in text)
        width -= 1  # a sign of two cells may stand at the end of a line
    folded = textwrap.fill(
        text,
        width=width,
        initial_indent=lead,
        subsequent_indent=" " * _LABEL_WIDTH,
        break_long_words=breaks_words,
        break_on_hyphens=False,
    )
    return folded.replace(_SECOND_CELL, "")


def age(duration_ms: int) -> str:
    """Return a duration in its largest whole unit: `12s`, `5m`, `3h`, `7d`."""
    seconds = max(0, duration_ms) // 1000
    for unit_s, unit in _UNITS_S:
        if seconds >= unit_s:
            return f"{seconds // unit_s}{unit}"
    return "0s"


def size(size_bytes: int) -> str:
    """Return a size in at most five characters: `812`, `4.2k`, `25M`."""
    if size_bytes < 1000:
        return str(size_bytes)
    amount = float(size_bytes)
    for unit in "kMGT":
        amount /= 1000
        if amount < 9.95:
            return f"{amount:.1f}{unit}"
        if amount < 999.5:
            return f"{amount:.0f}{unit}"
    return "huge"


def moment(at_ms: int, now_ms: int) -> str:
    """Return a time and how far it is from now, for people."""
    at = f"{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    if at_ms > now_ms:
        return f"{at} (in {age(at_ms - now_ms)})"
    return f"{at} ({age(now_ms - at_ms)} ago)"


def counted(number: int, noun: str) -> str:
    """Return `1 message`, `3 messages`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
