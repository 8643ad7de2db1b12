from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner, Result

from relaygw import __version__
from relaygw.cli import main
from relaygw.cli.frame import Root
from tests.tables import each_of

NOWHERE = "/nonexistent/relaygw.yaml"


def run(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def paths(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            yield from paths(command_of(command, name), (*path, name))


def command_of(group: click.Group, name: str) -> click.Command:
    found = group.get_command(click.Context(group), name)
    assert found is not None
    return found


def at(path: tuple[str, ...]) -> click.Command:
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        command = command_of(command, name)
    return command


ALL_PATHS = list(paths(main))


def test_version() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"relaygw {__version__}\n")


@each_of("path", ALL_PATHS, ids=" ".join)
def test_help_is_everywhere_and_fits_80_columns(path: tuple[str, ...]) -> None:
    for option in ("--help", "-h"):
        result = run(*path, option)
        assert result.exit_code == 0
        assert result.stdout.startswith("Usage:")
        assert max(map(len, result.stdout.splitlines())) <= 80


@each_of("path", ALL_PATHS, ids=" ".join)
def test_an_unknown_option_is_a_usage_error_in_one_line(path: tuple[str, ...]) -> None:
    result = run(*path, "--no-such-option")
    assert result.exit_code == 64
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("relaygw: ")
    assert line.endswith("--help")


def test_a_group_alone_shows_its_help_on_stderr() -> None:
    for words in ((), ("queue",)):
        result = run(*words)
        assert (result.exit_code, result.stdout) == (64, "")
        assert "Commands:" in result.stderr


@each_of(
    "words",
    [
        ("queue", "show"),
        ("queue", "list", "--limit", "0"),
        ("queue", "list", "--older-than", "soon"),
        ("queue", "list", "--state", "lost"),
        ("queue", "show", "X", "--raw", "--json"),
        ("sandbox", "show", "X", "--raw", "--json"),
        ("queue", "list", "--json", "--mailq"),
        ("queue", "list", "--mailq", "--postfix-json"),
        ("serve", "--role", "king"),
        ("send-test",),
        ("check", "--sender", "a@b.test"),
        ("check", "--header", "X: y"),
        ("check", "--json"),
        ("check", "--online", "--recipient", "b@c.test"),
        ("check", "--online", "--sender", "a@b.test", "--header", "X: y"),
        ("check", "--sender", "a@b.test", "--recipient", "b@c.test", "--header", "no colon"),
    ],
)
def test_usage_errors(words: tuple[str, ...]) -> None:
    result = run(*words)
    assert result.exit_code == 64
    assert len(result.stderr.splitlines()) == 1


@each_of(
    "words",
    [
        ("--preset", "ses", "--region", "eu-west-1", "SESPW"),
        ("--password", "SESPW"),
        ("--password=SESPW",),
        ("--key=SESPW",),
        ("--secret", "SESPW"),
        ("--api-key=SESPW",),
    ],
)
def test_setup_shows_no_key_that_is_typed_as_an_argument(words: tuple[str, ...]) -> None:
    result = run("setup", *words)
    assert result.exit_code == 64
    assert "a key is read from --key-file FILE or standard input" in result.stderr
    assert "SESPW" not in result.output


def test_two_ways_to_print_exclude_each_other() -> None:
    result = run("queue", "list", "--postfix-json", "--json")
    assert "--json and --postfix-json cannot be used together; remove one" in result.stderr


@pytest.mark.parametrize(
    "words",
    [("--config", NOWHERE, "queue", "list"), ("queue", "--config", NOWHERE, "list"),
     ("queue", "list", "--config", NOWHERE), ("serve", "--config", NOWHERE),
     ("--config", "/other", "check", "--config", NOWHERE)],
)  # fmt: skip
def test_global_options_stand_anywhere_and_the_last_one_counts(words: tuple[str, ...]) -> None:
    result = run(*words)
    assert result.exit_code == 78
    assert result.stderr.startswith(f"relaygw: {NOWHERE}: cannot be read")


@each_of("path", ALL_PATHS, ids=" ".join)
def test_every_command_takes_the_global_options(path: tuple[str, ...]) -> None:
    given = {word for one in at(path).params for word in one.opts}
    assert {"--config", "--debug"} <= given


def failing(error: BaseException) -> Root:
    @click.group(cls=Root)
    def root() -> None:
        pass

    @root.command()
    def fail() -> None:
        raise error

    return root


@each_of("path", ALL_PATHS, ids=" ".join)
def test_a_file_that_is_closed_is_told_of_by_the_command_itself(path: tuple[str, ...]) -> None:
    """With its remedy and its exit code; click would call it a wrong usage."""
    files = [one.name for one in at(path).params if getattr(one.type, "readable", False)]
    assert files == []


def test_an_unforeseen_error_is_one_line_and_70() -> None:
    result = CliRunner().invoke(failing(KeyError("x")), ["fail"])
    assert result.exit_code == 70
    assert result.stderr == "relaygw: internal error: KeyError: 'x'; --debug shows where\n"


def test_debug_shows_where() -> None:
    result = CliRunner().invoke(failing(KeyError("x")), ["fail", "--debug"])
    assert result.exit_code == 70
    assert "Traceback" in result.stderr


def test_an_interrupt_is_quiet() -> None:
    result = CliRunner().invoke(failing(KeyboardInterrupt()), ["fail"])
    assert (result.exit_code, result.stderr.strip()) == (130, "")


def test_an_error_text_cannot_steer_the_terminal() -> None:
    result = CliRunner().invoke(failing(KeyError("\x1b[2J")), ["fail"])
    assert "\x1b" not in result.stderr
