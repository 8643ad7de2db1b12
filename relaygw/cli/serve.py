"""`relaygw serve`: the gateway itself, in the foreground."""

from __future__ import annotations

import click

from relaygw.cli.frame import Command, Invocation, pass_invocation

ROLES = ("front", "delivery", "web")


@click.command(cls=Command)
@click.option(
    "--role",
    "chosen",
    multiple=True,
    type=click.Choice(ROLES),
    help="Run only this role; may be repeated.",
)
@pass_invocation
def serve(invocation: Invocation, chosen: tuple[str, ...]) -> int:
    """Run the gateway in the foreground; without a configuration the sandbox.

    TERM drains and ends it, HUP reads the configuration again, USR1 opens
    the log file again.
    """
    loaded = invocation.load()
    from relaygw import supervisor

    roles = tuple(role for role in ROLES if role in chosen) or ROLES
    return supervisor.run(loaded, config=invocation.config, roles=roles)
