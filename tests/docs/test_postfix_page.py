"""docs/coming-from-postfix.md names commands and options that are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click

from relaygw.cli import main
from relaygw_postfix.report import VERDICTS
from relaygw_postfix.sameness import Result

PAGE = (Path(__file__).parents[2] / "docs/coming-from-postfix.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
LINES = [line.partition("#")[0].strip() for block in BLOCKS for line in block.splitlines()]
CALLS = [line.removeprefix("sudo ") for line in LINES]


def test_every_call_of_relaygw_can_be_made() -> None:
    calls = [shlex.split(call)[1:] for call in CALLS if call.startswith("relaygw ")]
    assert len(calls) >= 8
    for words in calls:
        given = words[2:] if words[0] == "--config" else words
        command = main.get_command(click.Context(main), given[0])
        assert command is not None, words
        # parses the words and runs nothing
        command.make_context(
            given[0], given[1:], parent=click.Context(main, **main.context_settings)
        )


def test_the_words_of_the_tables_are_those_of_the_command() -> None:
    for word in (*VERDICTS, *Result):
        assert re.search(rf"^\| [^|]*\b{word}\b", PAGE, re.M), word


def test_every_option_of_the_command_is_told_where_it_helps() -> None:
    command = main.get_command(click.Context(main), "import-postfix")
    assert command is not None
    names = {name for param in command.params for name in param.opts if name.startswith("--")}
    untold = {"--json", "--config", "--debug"}
    assert [name for name in names - untold if f"`{name}" not in PAGE and name not in PAGE] == []
