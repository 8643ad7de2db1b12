"""Text for a terminal: columns, ages, sizes, and nothing that a terminal would obey; JSON lines.

Subjects, addresses and replies come from strangers; whatever is not printable becomes a
question mark. Widths are counted in terminal cells.
"""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import time
import unicodedata
from collections.abc import Iterable, Sequence

import click

from relaygw.mail.clock import utc_text
from relaygw.mail.words import age, printable, wait

_LABEL_WIDTH = 12
_SECOND_CELL = "\0"  # not printable, so it is in no text
DEFAULT_WIDTH = 80
SHOWN_ROWS = 20
_FIRST_S = 1.0  # shorter commands say nothing
_ON_TERMINAL_S = 0.2
_ELSEWHERE_S = 10.0  # a log wants few lines


def as_json(value: object) -> str:
    """Return one line of JSON in ASCII, which no terminal and no encoding can spoil."""
    return json.dumps(value, separators=(",", ":"))


def terminal_width() -> int:
    """Return $COLUMNS, else the terminal's width, else 80 (also in a pipe)."""
    return shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns


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


def aligned(widths: Sequence[int], *texts: object) -> str:
    """Return texts in columns; of a negative width is what stands at the right, uncut."""
    columns = zip(widths, map(str, texts), strict=True)
    shown = (fitted(text, width) if width > 0 else f"{text:>{-width}}" for width, text in columns)
    return " ".join(shown).rstrip()


def cut(text: str, max_cells: int) -> str:
    """Return printable `text` in at most `max_cells` cells, with an ellipsis if it is longer."""
    return printable(text) if cells(printable(text)) <= max_cells else fitted(text, max_cells)


def labelled(
    label: str,
    text: str,
    *,
    indent: int = 0,
    breaks_words: bool = False,
    label_cells: int = _LABEL_WIDTH,
) -> str:
    """Return `label` and the text beside it, folded at the terminal's width.

    Long words stay whole, to be copied, unless `breaks_words`: strangers write very long ones.
    """
    lead = f"{' ' * indent}{label} ".ljust(label_cells)
    width = max(terminal_width(), 40)
    text = printable(text)
    if not text.isascii():
        text = "".join(sign + _SECOND_CELL * (_cells(sign) - 1) for sign in text)
        width -= 1  # a sign of two cells may stand at the end of a line
    folded = textwrap.fill(
        text,
        width=width,
        initial_indent=lead,
        subsequent_indent=" " * label_cells,
        break_long_words=breaks_words,
        break_on_hyphens=False,
    )
    return folded.replace(_SECOND_CELL, "")


def moment(at_ms: int, now_ms: int) -> str:
    """Return a time and how far it is from now, for people."""
    if at_ms > now_ms:
        return f"{utc_text(at_ms)} (in {wait(at_ms - now_ms)})"
    return f"{utc_text(at_ms)} ({age(now_ms - at_ms)} ago)"


def first_of(lines: Sequence[str], more: str = "more") -> list[str]:
    """Return the first lines, and after them how many `more` there are."""
    left = len(lines) - SHOWN_ROWS
    return [*lines[:SHOWN_ROWS], f"... and {left} {more}"] if left > 0 else list(lines)


def print_lines(lines: Iterable[str]) -> None:
    """Print lines on stdout, each as it comes."""
    for line in lines:
        click.echo(line)


class Progress:
    """Tells on stderr now and then what has been done; `end` clears the one line of a terminal."""

    def __init__(self, done: str, total: int | None = None) -> None:
        self._done = done
        self._total = total
        self._is_terminal = sys.stderr.isatty()
        self._next_s = time.monotonic() + _FIRST_S
        self._shown = ""

    def tell(self, number: int) -> None:
        """Say that so many are done, unless something was said a moment ago."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + (_ON_TERMINAL_S if self._is_terminal else _ELSEWHERE_S)
        total = "" if self._total is None else f" of {self._total:,}"
        text = f"{number:,}{total} {self._done}"
        if self._is_terminal:
            click.echo(f"\r{text:<{len(self._shown)}}", err=True, nl=False)
            self._shown = text
        else:
            click.echo(f"relaygw: {text}", err=True)

    def end(self) -> None:
        """Take the line away again."""
        if self._shown:
            click.echo(f"\r{'':<{len(self._shown)}}\r", err=True, nl=False)
            self._shown = ""
