"""Commands and options that pages name are there."""

from __future__ import annotations

import re
from pathlib import Path

import click

from relaygw.cli import main
from tests.tables import each_of

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/coming-from-mailpit.md", "docs/troubleshooting.md")
NAMED = sorted(
    {
        " ".join(found.split())
        for page in PAGES
        for found in re.findall(
            r"(?:`|^|; )relaygw ((?:[a-z]|--)[^`;|#\n]*)", (ROOT / page).read_text(), re.M
        )
    }
)


@each_of("words", NAMED, ids=str)
def test_the_command_is_there(words: str) -> None:
    command: click.Command = main
    left = words.split()
    while left and isinstance(command, click.Group):
        found = command.get_command(click.Context(command), left[0].rstrip(".,:)"))
        if found is None:
            break
        command = found
        left = left[1:]
    assert command is not main, f"there is no relaygw {words}"
    options = {name for one in command.params for name in one.opts}
    for word in re.findall(r"(?<!\S)--[a-z-]+", " ".join(left)):
        assert word in options | {"--config", "--help"}, f"relaygw {words} has no {word}"


def test_many_are_named() -> None:
    assert len(NAMED) > 20
