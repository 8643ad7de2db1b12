"""Commands that are made of the verbs of operators: see operations.verb."""

from __future__ import annotations

import click

from relaygw.cli import frame
from relaygw.cli.frame import Command, CommandFailed, Invocation, login_name
from relaygw.cli.text import as_json
from relaygw.mail.clock import clock_ms
from relaygw.mail.words import printable
from relaygw.operations.verb import Asked, Mistake, Parameter, Verb


def command_of(verb: Verb) -> click.Command:
    """Return the command that carries out a verb, and wakes the workers."""

    @frame.JSON_LINES
    @frame.pass_invocation
    def run(invocation: Invocation, /, wants_json: bool, **values: str | None) -> None:
        given = {name: text for name, text in values.items() if text is not None}
        loaded = invocation.load_running()
        with invocation.open_store(loaded) as store:
            asked = Asked(
                store=store, settings=loaded.settings, actor=login_name(), now_ms=clock_ms()
            )
            try:
                done = verb.carry_out(given, asked)
            except Mistake as error:
                raise CommandFailed(str(error)) from error
        invocation.wake_workers()
        click.echo(as_json(done) if wants_json else printable(verb.words(done)))

    command = click.command(verb.name, cls=Command, help=verb.help)(run)
    command.params[:0] = map(_parameter, verb.parameters)
    return command


def _parameter(parameter: Parameter) -> click.Parameter:
    if parameter.is_target:
        return click.Argument([parameter.name], metavar=parameter.metavar, type=frame.TEXT)
    flag = f"--{parameter.name.replace('_', '-')}"
    return click.Option([flag], metavar=parameter.metavar, type=frame.TEXT, help=parameter.help)
