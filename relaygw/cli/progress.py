"""How far a long command is: on stderr, so that what is piped stays clean."""

from __future__ import annotations

import sys
import time

import click

_FIRST_S = 1.0  # shorter commands say nothing
_ON_TERMINAL_S = 0.2
_ELSEWHERE_S = 10.0  # a log wants few lines


class Progress:
    """Tells now and then what has been done; a terminal keeps one line, which `end` clears."""

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
