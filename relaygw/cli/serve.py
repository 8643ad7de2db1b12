"""`relaygw serve`: the gateway itself, in the foreground; `config`: the settings in force.

They tell where each value comes from; secrets by reference only.
"""

from __future__ import annotations

import json
import os
import signal

import click

from relaygw import service_file, state_owner
from relaygw.cli.frame import JSON_LINES, Command, Group, Invocation, pass_invocation, warn
from relaygw.cli.text import as_json
from relaygw.mail.words import printable
from relaygw.service_file import EARLY_SIGNALS

_ROLES = ("front", "delivery", "web")


@click.command(cls=Command)
@click.option(
    "--role",
    "chosen",
    multiple=True,
    type=click.Choice(_ROLES),
    help="Run only this role; repeatable.",
)
@pass_invocation
def serve(invocation: Invocation, chosen: tuple[str, ...]) -> int:
    """Run the gateway in the foreground; without a configuration, run the sandbox.

    TERM
    drains and stops it, HUP reloads the configuration, USR1 reopens the log file.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, EARLY_SIGNALS)
    loaded = invocation.load()
    from relaygw import supervisor
    from relaygw.cli.install_sendmail import maildrop_warnings
    from relaygw.late_packages import missing_parts

    if state_owner.caller_uid() != os.geteuid():
        warn(
            f"runs as {service_file.user_name(os.geteuid())}, whom {loaded.state_dir} belongs to, "
            "and opens its ports as root"
        )
    for text in (*missing_parts(), *maildrop_warnings(loaded.settings)):
        warn(f"warning: {text}")

    roles = tuple(role for role in _ROLES if role in chosen) or _ROLES
    return supervisor.run(loaded, config=invocation.config, roles=roles)


@click.group(cls=Group)
def config() -> None:
    """Show the configuration."""


@config.command()
@click.option("--origin", "with_origin", is_flag=True, help="Add the origin of each value.")
@JSON_LINES
@pass_invocation
def show(invocation: Invocation, with_origin: bool, wants_json: bool) -> None:
    """Show every value, defaults included."""
    from relaygw.settings.load import origin_lines  # serve blocks signals before it loads this

    for key, value, origin in origin_lines(invocation.load()):
        if wants_json:
            plain = None if value == "~" else json.loads(value)
            click.echo(as_json({"key": key, "value": plain, "origin": origin}))
        else:
            line = f"{key}: {value}" + (f"  # {origin}" if with_origin else "")
            click.echo(printable(line))
