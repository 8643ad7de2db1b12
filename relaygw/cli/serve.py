"""`relaygw serve`: the gateway itself, in the foreground."""

from __future__ import annotations

import os
import signal

import click

from relaygw import service_file, state_owner
from relaygw.cli.frame import Command, Invocation, pass_invocation
from relaygw.cli.stderr import warn
from relaygw.errors import QueueDamaged, SettingsError
from relaygw.roles.systemd import turn_away_clients
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
    try:
        return _run(invocation, chosen)
    except (QueueDamaged, SettingsError):  # which systemd does not start again by itself
        turn_away_clients(os.environ)
        raise


def _run(invocation: Invocation, chosen: tuple[str, ...]) -> int:
    loaded = invocation.load()
    from relaygw import supervisor
    from relaygw.cli.install_sendmail import maildrop_warnings
    from relaygw.cli.running_gateway import check_mode_of_queue
    from relaygw.late_packages import missing_parts
    from relaygw.settings.in_force import check_sandbox_is_meant
    from relaygw.volume import is_private_temporary

    check_sandbox_is_meant(loaded)
    check_mode_of_queue(loaded.settings)
    if not loaded.settings.queue.is_postgres and is_private_temporary(loaded.state_dir):
        raise SettingsError(
            f"queue.url: {loaded.state_dir} is emptied by systemd when the service stops "
            "(PrivateTmp=), and mail in it would be lost; use another place, such as "
            "/var/lib/relaygw"
        )

    if state_owner.caller_uid() != os.geteuid():
        warn(
            f"runs as {service_file.user_name(os.geteuid())}, whom {loaded.state_dir} belongs to, "
            "and opens its ports as root"
        )
    for text in (*missing_parts(), *maildrop_warnings(loaded.settings)):
        warn(f"warning: {text}")

    roles = tuple(role for role in _ROLES if role in chosen) or _ROLES
    return supervisor.run(loaded, config=invocation.config, roles=roles)
