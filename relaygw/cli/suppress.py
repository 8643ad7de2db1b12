"""`relaygw suppress`: addresses that get no more mail of a sender's domain."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import click

from relaygw import state_owner
from relaygw.cli import frame
from relaygw.cli.frame import CommandFailed, Invocation, login_name, pass_invocation
from relaygw.cli.selection import NOT_EMPTY
from relaygw.cli.stderr import warn
from relaygw.cli.text import SHOWN_ROWS, Progress, as_json, cut, print_lines
from relaygw.cli.verbs import command_of, option
from relaygw.mail.clock import clock_ms
from relaygw.mail.suppression import ANY, Cause
from relaygw.mail.words import counted
from relaygw.operations.suppression import (
    Exported,
    Imported,
    export_list,
    import_list,
    row_words,
    suppression_object,
)
from relaygw.operations.suppression.forms import WRITTEN, Defaults
from relaygw.operations.suppression.reading import BadLine, UnknownForm, read_list
from relaygw.operations.suppression.verbs import (
    ADD,
    EXPIRES,
    REASONS,
    REMOVE,
    SENDER_DOMAIN,
    STREAM,
)
from relaygw.store.suppression_list import SuppressionFilter, every_suppression

_STDIN = "-"
_SENDER_DOMAIN, _STREAM, _EXPIRES = map(option, (SENDER_DOMAIN, STREAM, EXPIRES))
_REASON = click.option("--reason", type=click.Choice(REASONS), help="Suppressed for it.")
_DRY_RUN = click.option(
    "--dry-run", "is_dry_run", is_flag=True, help="Only show what would happen."
)


@click.group(cls=frame.Group)
def suppress() -> None:
    """Show, change, import and export suppressed addresses."""


for _verb in (ADD, REMOVE):
    suppress.add_command(command_of(_verb))


# --- list ---------------------------------------------------------------------------------


@suppress.command("list")
@click.argument("text", required=False, type=NOT_EMPTY)
@_SENDER_DOMAIN
@_STREAM
@_REASON
@frame.limit_option(50, "addresses")
@frame.JSON_LINES
@pass_invocation
def list_suppressed(
    invocation: Invocation,
    text: str | None,
    sender_domain: str | None,
    stream: str | None,
    reason: str | None,
    limit: int,
    wants_json: bool,
) -> None:
    """List suppressed addresses, newest first; TEXT stands in the address."""
    wanted = _filter(text, sender_domain, stream, reason)
    number = 0
    with invocation.open_store() as store:
        for number, suppression in enumerate(every_suppression(store.suppressions, wanted), 1):
            if number > limit:
                break
            click.echo(
                as_json(suppression_object(suppression))
                if wants_json
                else cut(row_words(suppression, clock_ms()), 400)
            )
    if not wants_json:
        more = ", more match" if number > limit else ""
        click.echo(f"-- {counted(min(number, limit), 'address', 'addresses')}{more}")


def _filter(
    text: str | None, sender_domain: str | None, stream: str | None, reason: str | None
) -> SuppressionFilter:
    causes = frozenset({Cause(reason)} if reason else ())
    return SuppressionFilter(text=text, sender_domain=sender_domain, stream=stream, causes=causes)


# --- import and export --------------------------------------------------------------------


@suppress.command("import")
@click.argument("file", metavar="FILE", type=click.Path(readable=False))
@_SENDER_DOMAIN
@_STREAM
@click.option("--reason", type=click.Choice(REASONS), default="manual",
              show_default=True, help="Of addresses for which FILE tells none.")  # fmt: skip
@_EXPIRES
@_DRY_RUN
@frame.JSON_LINES
@pass_invocation
def import_suppressed(
    invocation: Invocation,
    file: str,
    sender_domain: str | None,
    stream: str | None,
    reason: str,
    expires: float | None,
    is_dry_run: bool,
    wants_json: bool,
) -> int:
    """Add the addresses of FILE (- is stdin), whose form is recognised.

    Known are exports of SES, SendGrid, Mailgun, Postmark and Resend, a Postfix access map or list
    of addresses, and the form of export. Lines that are not understood are told; the rest is added.
    """
    now_ms = clock_ms()
    loaded = invocation.load_running()
    rules = loaded.settings.suppression.rules()
    defaults = Defaults(
        now_ms=now_ms,
        sender_domain=sender_domain or ANY,
        stream=stream or ANY,
        cause=Cause(reason),
        expires_at_ms=partial(rules.expiry, now_ms=now_ms, lasts_s=expires),
    )
    progress = Progress("addresses read")
    with _opened(file) as source, invocation.open_store(loaded) as store:
        try:
            reading = read_list(source, defaults)
            done = import_list(
                store,
                reading,
                name="stdin" if file == _STDIN else Path(file).name,
                actor=login_name(),
                now_ms=now_ms,
                is_dry_run=is_dry_run,
                tell=_teller(wants_json),
                progress=progress.tell,
            )
        except UnknownForm as error:
            raise CommandFailed(f"{file}: {error}") from error
        finally:
            progress.end()
    _tell_end(done, wants_json)
    return os.EX_DATAERR if done.errors else os.EX_OK


def _teller(wants_json: bool) -> Callable[[BadLine], None]:
    """Return the lines about lines that were not understood, not more than anybody reads."""
    numbers = itertools.count(1)

    def tell(line: BadLine) -> None:
        if wants_json:
            what = {"line": line.number, "result": "not understood", "reason": line.problem}
            click.echo(as_json(what))
        elif next(numbers) <= SHOWN_ROWS:
            warn(f"line {line.number}: {line.problem}")

    return tell


def _tell_end(done: Imported, wants_json: bool) -> None:
    if wants_json:
        click.echo(as_json(asdict(done)))
        return
    if done.errors > SHOWN_ROWS:
        warn(f"... and {done.errors - SHOWN_ROWS:,} more lines; --json shows all of them")
    would = "would be " if done.is_dry_run else ""
    parts = [f"{counted(done.added, 'address', 'addresses', form=',')} {would}added"]
    parts += [f"{done.known:,} already known"] if done.known else []
    parts += [f"{done.expired:,} expired"] if done.expired else []
    parts += [f"{counted(done.errors, 'line', form=',')} not understood"] if done.errors else []
    click.echo(f"{', '.join(parts)} (form: {done.form})")


def _opened(file: str) -> Any:
    if file == _STDIN:
        return nullcontext[BinaryIO](sys.stdin.buffer)
    try:
        with state_owner.as_reader_of(Path(file)):
            return Path(file).open("rb")
    except OSError as error:
        raise CommandFailed(
            f"{file}: {error.strerror}; name a file that can be read", exit_code=os.EX_NOINPUT
        ) from error


@suppress.command("export")
@click.argument("text", required=False, type=NOT_EMPTY)
@_SENDER_DOMAIN
@_STREAM
@_REASON
@click.option(
    "--format", "form", metavar="FORM", type=click.Choice(list(WRITTEN)), default="own",
    show_default=True, help="own, ses, sendgrid, mailgun, postmark, resend, postfix, ...",
)  # fmt: skip
@frame.JSON_LINES
@pass_invocation
def export_suppressed(
    invocation: Invocation,
    text: str | None,
    sender_domain: str | None,
    stream: str | None,
    reason: str | None,
    form: str,
    wants_json: bool,
) -> None:
    """Write suppressed addresses to stdout, for relaygw suppress import or for a provider."""
    wanted = _filter(text, sender_domain, stream, reason)
    done = Exported()
    with invocation.open_store() as store:
        if wants_json:
            print_lines(
                as_json(suppression_object(suppression))
                for suppression in every_suppression(store.suppressions, wanted)
            )
            return
        for row in export_list(store, form, wanted, done=done):
            click.echo(row, nl=False)
    if done.left_out:
        what = counted(done.left_out, "address", "addresses", form=",")
        warn(f"{what} left out: the form {form} has no word for the reason, or cannot hold them")
