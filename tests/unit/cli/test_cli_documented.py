"""docs/commands.md and the commands themselves say the same."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from relaygw.cli import _COMMANDS, main
from tests.tables import each_of

PAGE = (Path(__file__).parents[3] / "docs" / "commands.md").read_text()
SECTIONS = {
    match[1]: match[2]
    for match in re.finditer(r"^## `relaygw ([^`]+)`\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.M)
}
FORMS = {"--json", "--mailq", "--postfix-json", "--oldest-first", "--newest-first"}
GLOBAL_OPTIONS = {"--config", "--debug", "--help", "-h"}


def commands(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            child = command.get_command(ctx, name)
            assert child is not None
            yield from commands(child, f"{path} {name}".strip())
    else:
        yield path, command


ALL_COMMANDS = dict(commands(main))


def options_of(command: click.Command) -> set[str]:
    # not get_params(): it keeps the help option of whatever context it is first called with
    options = [param for param in command.params if isinstance(param, click.Option)]
    return {name for option in options for name in option.opts} - GLOBAL_OPTIONS


def test_every_command_has_its_section_and_no_other() -> None:
    assert set(SECTIONS) == set(ALL_COMMANDS)


@each_of("path", ALL_COMMANDS)
def test_every_option_is_documented_and_no_other(path: str) -> None:
    lists = re.findall(r"^Options: (?:.|\n)*?(?=\n\n|\Z)", SECTIONS[path], re.M)
    rows = re.findall(r"^\| `(--[a-z-]+)", SECTIONS[path], re.M)
    documented = {*rows, *(name for text in lists for name in re.findall(r"`(--[a-z-]+)`", text))}
    assert documented == options_of(ALL_COMMANDS[path])


@each_of("path", ALL_COMMANDS)
def test_no_two_parameters_have_one_name(path: str) -> None:
    names = [param.name for param in ALL_COMMANDS[path].params]
    assert sorted(names) == sorted(set(names))  # the value of one would be lost


def test_every_selector_is_explained() -> None:
    explained = PAGE.split("## Selectors", 1)[1].split("\n## ", 1)[0]
    selectors = set(re.findall(r"^\| `(--[a-z-]+)", explained, re.M))
    assert selectors == options_of(ALL_COMMANDS["queue list"]) - FORMS


def test_the_list_of_commands_has_their_own_words() -> None:
    ctx = click.Context(main)
    told = {name: main.get_command(ctx, name) for name in main.list_commands(ctx)}
    own = {
        name: " ".join((one.help or "").split("\n\n")[0].split())
        for name, one in told.items()
        if one is not None
    }
    assert own == dict(_COMMANDS)


def test_help_loads_no_command() -> None:
    code = "import sys, relaygw.cli; print([one for one in sys.modules if 'sqlalchemy' in one])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
