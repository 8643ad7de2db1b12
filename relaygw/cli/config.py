"""`relaygw config`: the settings in force, where each comes from, secrets by reference only."""

from __future__ import annotations

import json

import click

from relaygw.cli.frame import JSON_LINES, Group, Invocation, pass_invocation
from relaygw.cli.text import as_json
from relaygw.errors import SettingsError
from relaygw.mail.words import printable


@click.group(cls=Group)
def config() -> None:
    """Show the configuration."""


@config.command()
@click.option("--origin", "with_origin", is_flag=True, help="Add the origin of each value.")
@JSON_LINES
@pass_invocation
def show(invocation: Invocation, with_origin: bool, wants_json: bool) -> None:
    """Show every value, defaults included."""
    from relaygw.cli.running_gateway import missing_file
    from relaygw.settings.load import origin_lines  # serve blocks signals before it loads this

    loaded = invocation.load()
    for problem in missing_file(loaded):
        raise SettingsError(problem)
    for key, value, origin in origin_lines(loaded):
        if wants_json:
            plain = None if value == "~" else json.loads(value)
            click.echo(as_json({"key": key, "value": plain, "origin": origin}))
        else:
            line = f"{key}: {value}" + (f"  # {origin}" if with_origin else "")
            click.echo(printable(line))
