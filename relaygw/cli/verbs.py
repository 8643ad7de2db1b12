"""Commands that are made of the verbs of operators: see operations.verb."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click

from relaygw.cli import frame
from relaygw.cli.frame import Command, Invocation, Text, login_name
from relaygw.cli.stderr import warn
from relaygw.cli.text import as_json, print_lines
from relaygw.mail.clock import clock_ms
from relaygw.mail.words import printable
from relaygw.operations.verb import Asked, Done, Kind, Mistake, Parameter, Verb


def command_of(verb: Verb) -> click.Command:
    """Return the command that carries out a verb, and wakes the workers.

    Of several targets one that is not known ends it with 65, and the others are changed.
    """
    syntax = {parameter.name for parameter in verb.parameters if parameter.is_syntax}

    @frame.pass_invocation
    def run(invocation: Invocation, /, wants_json: bool = False, **values: Any) -> int:
        given = {name: value for name, value in values.items() if value is not None}
        loaded = invocation.load_running()
        code = os.EX_OK
        with invocation.open_store(loaded) as store:
            asked = Asked(
                store=store, settings=loaded.settings, actor=login_name(), now_ms=clock_ms()
            )
            for each in _by_target(verb, given):
                try:
                    done = verb.carry_out(each, asked)
                except Mistake as error:
                    if error.name in syntax:
                        raise click.UsageError(str(error)) from error
                    warn(str(error))
                    code = os.EX_DATAERR
                    continue
                invocation.wake_workers()
                _tell(done, wants_json)
                code = os.EX_DATAERR if done.left else code
        return code

    whole = frame.JSON_LINES(run) if verb.has_json else run
    command = click.command(verb.name, cls=Command, help=verb.help)(whole)
    command.params[:0] = map(_parameter, verb.parameters)
    return command


def _by_target(verb: Verb, given: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield what is given for each target of a command that takes several, each once."""
    repeated = [parameter.name for parameter in verb.parameters if parameter.is_repeatable]
    if not repeated:
        yield given
    for name in repeated:
        yield from ({**given, name: target} for target in dict.fromkeys(given[name]))


def _tell(done: Done, wants_json: bool) -> None:
    if wants_json:
        print_lines(map(as_json, [done.answer] if done.objects is None else done.objects))
    else:
        print_lines(map(printable, done.lines))
    for line in done.left:
        warn(line)


def _parameter(parameter: Parameter) -> click.Parameter:
    name, metavar = parameter.name, parameter.metavar or None
    if parameter.is_argument:
        number = -1 if parameter.kind is Kind.LIST or parameter.is_repeatable else 1
        return click.Argument([name], metavar=metavar, nargs=number, required=True, type=frame.TEXT)
    kind: click.ParamType[Any] = frame.TEXT
    if parameter.choices:
        kind = click.Choice(parameter.choices)
    elif parameter.kind is Kind.NUMBER:
        kind = frame.NUMBER_FROM_1
    return click.Option(
        [f"--{parameter.option_name}", name],
        metavar=metavar,
        type=None if parameter.kind is Kind.FLAG else kind,
        is_flag=parameter.kind is Kind.FLAG,
        default=parameter.default or None,
        show_default=bool(parameter.default),
        help=parameter.help,
    )


def option(parameter: Parameter) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option of a parameter for a command that is no verb: it gets the value."""

    def take(text: str) -> Any:
        try:
            return parameter.read_alone(text)
        except Mistake as error:
            raise click.BadParameter(str(error)) from error

    kind = click.Choice(parameter.choices) if parameter.choices else Text(take)
    return click.option(
        f"--{parameter.option_name}",
        metavar=parameter.metavar or None,
        type=kind,
        help=parameter.help,
    )
