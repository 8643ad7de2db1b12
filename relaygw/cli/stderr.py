"""Lines for people on stderr."""

from __future__ import annotations

import click

from relaygw.mail.words import printable

PROGRAM = "relaygw"


def warn(text: str) -> None:
    """Write one or more lines to stderr, each with the name of the program."""
    for line in text.splitlines() or [""]:
        click.echo(f"{PROGRAM}: {printable(line)}", err=True)
