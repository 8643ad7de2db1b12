"""What `relaygw setup` does once there is a configuration; it is told before it is done."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import click

from relaygw import service_file, state_owner
from relaygw.cli import send_test as sending
from relaygw.cli import setup_host as host
from relaygw.cli.check import check_settings
from relaygw.cli.check_findings import AskedMail, take_variables_of_service
from relaygw.cli.frame import CommandFailed, Invocation, address_of
from relaygw.cli.install_sendmail import Programs, install_sendmail, php_lines
from relaygw.cli.setup_plan import SECRETS
from relaygw.cli.stderr import warn
from relaygw.cli.text import print_lines
from relaygw.settings.in_force import is_in_force
from relaygw.settings.load import LoadedSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """How it is done, beside what is answered."""

    key_file: str | None
    refresh_token_file: str | None
    recipient: str | None
    prefix: Path
    is_sure: bool
    is_dry_run: bool
    is_offline: bool
    is_smtp_only: bool


def later_steps(config: Path, wishes: Wishes) -> Iterator[str]:
    """Yield what is done once the configuration is there."""
    yield "check the configuration" + ("" if wishes.is_offline else ", and ask the mail service")
    if not wishes.is_smtp_only:
        yield f"install-sendmail --prefix {wishes.prefix}, unless another mailer is installed"
    if host.is_of_service(config):
        yield f"systemctl enable --now {' '.join(host.UNITS)}"
    if wishes.recipient:
        yield f"send a test mail to {wishes.recipient}, by SMTP and the way PHP does"


class Steps:
    """What is done with a configuration that is there; each step finds out whether it is done."""

    def __init__(self, invocation: Invocation, wishes: Wishes) -> None:
        self._invocation = invocation
        self._wishes = wishes
        self._config = invocation.config
        self._context = click.get_current_context()
        self._loaded: LoadedSettings = invocation.read()

    def run(self) -> None:
        """Do them all; raises CommandFailed at the first that fails."""
        self._check()
        if not self._wishes.is_smtp_only:
            self._install_sendmail()
        self._start_service()
        self._try()

    def _check(self) -> None:
        is_online = not self._wishes.is_offline and bool(self._loaded.settings.providers)
        click.echo(f"--- relaygw check{' --online' if is_online else ''}")
        doubts = take_variables_of_service(self._loaded)
        with state_owner.as_owner_of(self._loaded.state_dir):
            code = check_settings(
                self._invocation,
                self._loaded,
                AskedMail(),
                doubts,
                online=is_online,
                changes_socket=True,
            )
        if code != os.EX_OK:
            raise CommandFailed(
                f"it does not work yet; correct {self._config}, or the key in "
                f"{self._config.parent / SECRETS if self._config else SECRETS}, and run relaygw "
                "setup again",
                exit_code=os.EX_UNAVAILABLE,
            )

    def _install_sendmail(self) -> None:
        click.echo(f"--- relaygw install-sendmail --prefix {self._wishes.prefix}")
        programs = Programs(self._wishes.prefix.absolute())
        if programs.are_there():
            click.echo("is there; for PHP, in php.ini of FPM and of the command line (cron):")
            print_lines(php_lines(self._wishes.prefix))
            return
        if foreign := programs.foreign():
            warn(
                f"{foreign[0]} belongs to another mailer and is kept; PHP's mail goes to it until "
                "the package relaygw-mta, or relaygw install-sendmail --force, replaces it"
            )
            return
        self._context.invoke(
            install_sendmail, prefix=self._wishes.prefix, force=False, uninstall=False
        )

    def _is_of_service(self) -> bool:
        return host.is_of_service(self._config)

    def _start_service(self) -> None:
        if not self._is_of_service():
            return
        click.echo(f"--- systemctl enable --now {' '.join(host.UNITS)}")
        host.refuse_taken_addresses(self._loaded.settings)
        change = host.socket_change(self._loaded.settings)
        if change:
            click.echo(f"{change} {host.DROP_IN}")
            host.put_socket_file(self._loaded.settings)
        elif host.is_enabled():
            self._reload_service()
            return
        host.enable(is_new=bool(change))

    def _reload_service(self) -> None:
        if self._is_in_force():
            click.echo("runs")
            return
        click.echo(f"runs with other settings\n--- systemctl reload {host.UNITS[-1]}")
        host.reload_service(self._loaded)

    def _is_in_force(self) -> bool:
        with state_owner.as_owner_of(self._loaded.state_dir):
            return is_in_force(self._loaded)

    def _try(self) -> None:
        with state_owner.as_owner_of(self._loaded.state_dir):
            recipient = self._try_by_smtp()
        if recipient:
            self._try_as_web_user(recipient)

    def _try_by_smtp(self) -> str:
        """Send a test mail, and return to whom; empty: none was sent."""
        running = service_file.running_service(self._loaded.state_dir)
        if running is None:
            words = shlex.join(["relaygw", "serve", "--config", str(self._config)])
            click.echo(f"The gateway is not running here. Start it: {words}")
            return ""
        recipient = self._wishes.recipient or self._ask_recipient()
        if not recipient:
            click.echo("No test mail was sent. Send one: relaygw send-test --to ADDRESS")
            return ""
        click.echo(f"--- relaygw send-test --to {recipient}")
        if not (self._is_of_service() or self._is_in_force()):
            self._refuse_other_settings(running)
        self._must_end(
            self._context.invoke(
                sending.send_test, recipient=recipient, sender=self._sender(), timeout_s=60.0
            )
        )
        return recipient

    def _refuse_other_settings(self, pid: int) -> NoReturn:
        config = str(self._loaded.files[0].absolute())
        for gateway in service_file.running_gateways(os.environ):
            if gateway.pid == pid and gateway.config not in ("", config):
                raise CommandFailed(
                    f"the gateway of this queue runs with {gateway.config}, and no test mail was "
                    f"sent; for a second gateway give {config} a queue.url, listeners, web.bind "
                    "and maildrop.path of its own, else run: relaygw setup --config "
                    f"{shlex.quote(gateway.config)}",
                    exit_code=os.EX_UNAVAILABLE,
                )
        raise CommandFailed(
            f"the gateway that runs here does not run with the settings of {config}, and "
            f"no test mail was sent; reload it: kill -HUP {pid}; and run setup again",
            exit_code=os.EX_UNAVAILABLE,
        )

    def _ask_recipient(self) -> str:
        if self._wishes.is_sure or not sys.stdin.isatty():
            return ""
        question = "Recipient of a test mail (empty: none)"
        while said := click.prompt(question, default="", show_default=False, err=True).strip():
            try:
                return address_of(said, "the answer")
            except CommandFailed as error:
                click.echo(str(error), err=True)
        return ""

    def _sender(self) -> str | None:
        senders = self._loaded.settings.rewrite.senders.values()
        return next((sender for sender in senders if not sender.startswith("@")), None)

    def _try_as_web_user(self, recipient: str) -> None:
        program = self._wishes.prefix.absolute() / "sbin/sendmail"
        user = host.user_entry(*host.WEB_USERS)
        if user is None or os.geteuid() != 0 or not Programs(program.parents[1]).are_there():
            return
        click.echo(f"--- {program} -t -i, as {user.pw_name}")
        subject = f"Test from relaygw as {user.pw_name} {secrets.token_hex(4)}"
        host.send_as(user, program, recipient, subject)
        with (
            state_owner.as_owner_of(self._loaded.state_dir),
            self._invocation.open_store(self._loaded) as store,
        ):
            queue_id = host.queued_as(store, subject)
            click.echo(f"{queue_id}: accepted from {user.pw_name}")
            code = sending.watch(store, self._loaded.settings, queue_id, timeout_s=60.0)
        self._must_end(code)

    def _must_end(self, code: int) -> None:
        if code != os.EX_OK:
            raise CommandFailed(
                "the test mail did not arrive; the output above shows why", exit_code=code
            )
