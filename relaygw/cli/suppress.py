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
from relaygw.cli.frame import CommandFailed, Invocation, Text, login_name, pass_invocation
from relaygw.cli.selection import NOT_EMPTY
from relaygw.cli.stderr import warn
from relaygw.cli.text import SHOWN_ROWS, Progress, as_json, cut, print_lines
from relaygw.mail.clock import clock_ms, utc_text
from relaygw.mail.suppression import ANY, STREAMS, Cause, Suppression, read_domain
from relaygw.mail.words import counted
from relaygw.operations.suppression import (
    Exported,
    Imported,
    effect,
    export_list,
    import_list,
    lift_of,
    suppression_object,
)
from relaygw.operations.suppression import suppress as suppress_all
from relaygw.operations.suppression.entry import entries_of, read_field
from relaygw.operations.suppression.forms import WRITTEN, Defaults
from relaygw.operations.suppression.reading import BadLine, UnknownForm, read_list
from relaygw.policy.recipients import read_address
from relaygw.settings.suppression import parse_expiry
from relaygw.store.suppression_list import SuppressionFilter, every_suppression

_STDIN = "-"
_SOON_MS = 2 * 86_400_000  # what ends within it is shown with its time


def _take_domain(text: str) -> str:
    return read_field(
        read_domain,
        text,
        lambda why: click.BadParameter(
            f"{text!r} is not a domain: {why}; write example.com, or * for any sender"
        ),
    )


def _take_expiry(text: str) -> float:
    return read_field(parse_expiry, text, lambda why: click.BadParameter(f"{text!r} {why}"))


_SENDER_DOMAIN = click.option(
    "--sender-domain", metavar="DOMAIN", type=Text(_take_domain),
    help="Of mail whose sender is at DOMAIN; * is any sender.",
)  # fmt: skip
_STREAM = click.option("--stream", type=click.Choice(STREAMS), help="Of mail of this stream.")
_REASON = click.option(
    "--reason", type=click.Choice([cause.value for cause in Cause]), help="Suppressed for it."
)
_EXPIRES = click.option(
    "--expires", metavar="AGE", type=Text(_take_expiry),
    help="For so long, such as 30d, or never; default: suppression.expire.",
)  # fmt: skip
_DRY_RUN = click.option(
    "--dry-run", "is_dry_run", is_flag=True, help="Only show what would happen."
)


@click.group(cls=frame.Group)
def suppress() -> None:
    """Show, change, import and export suppressed addresses."""


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
                as_json(suppression_object(suppression)) if wants_json else _row(suppression)
            )
    if not wants_json:
        more = ", more match" if number > limit else ""
        click.echo(f"-- {counted(min(number, limit), 'address', 'addresses')}{more}")


def _filter(
    text: str | None, sender_domain: str | None, stream: str | None, reason: str | None
) -> SuppressionFilter:
    causes = frozenset({Cause(reason)} if reason else ())
    return SuppressionFilter(text=text, sender_domain=sender_domain, stream=stream, causes=causes)


def _row(suppression: Suppression) -> str:
    whose = suppression.sender_domain or "any sender"
    scope = f"{whose}, {suppression.stream}" if suppression.stream else whose
    return cut(f"{suppression.address}  ({scope})  {suppression.words}{_until(suppression)}", 400)


def _until(suppression: Suppression) -> str:
    if suppression.expires_at_ms is None:
        return ""
    is_soon = abs(suppression.expires_at_ms - clock_ms()) < _SOON_MS
    shown = (
        utc_text(suppression.expires_at_ms)
        if is_soon
        else utc_text(suppression.expires_at_ms, "%Y-%m-%d")
    )
    return f"; until {shown}"


# --- add and remove -----------------------------------------------------------------------


@suppress.command("add")
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@_SENDER_DOMAIN
@_STREAM
@click.option("--reason", type=click.Choice([cause.value for cause in Cause]), default="manual",
              show_default=True, help="Why.")  # fmt: skip
@click.option("--note", metavar="TEXT", default="", help="Shown with the address.")
@_EXPIRES
@_DRY_RUN
@frame.JSON_LINES
@pass_invocation
def add_suppressed(
    invocation: Invocation,
    addresses: tuple[str, ...],
    sender_domain: str | None,
    stream: str | None,
    reason: str,
    note: str,
    expires: float | None,
    is_dry_run: bool,
    wants_json: bool,
) -> None:
    """Suppress addresses, for mail of any sender unless --sender-domain says whose."""
    now_ms = clock_ms()
    loaded = invocation.load_running()
    rules = loaded.settings.suppression.rules()
    entries = entries_of(
        map(_mailbox, dict.fromkeys(addresses)),
        sender_domain=sender_domain or ANY,
        stream=stream,
        cause=Cause(reason),
        source=login_name(),
        note=note,
        rules=rules,
        now_ms=now_ms,
        lasts_s=expires,
    )
    with invocation.open_store(loaded) as store:
        if not is_dry_run:
            suppress_all(store, entries, actor=login_name(), now_ms=now_ms)
    done = "would be suppressed" if is_dry_run else "suppressed"
    for entry in entries:
        text = f"{entry.address} {done}{_until(entry)}: {effect(entry, rules)}"
        click.echo(_result(entry, done) if wants_json else text)


def _result(suppression: Suppression, done: str) -> str:
    return as_json({**suppression_object(suppression), "result": done})


def _mailbox(text: str) -> str:
    return read_field(
        read_address,
        text,
        lambda why: CommandFailed(f"{text!r} is not an address: {why}; write user@example.com"),
    )


@suppress.command("remove")
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@_SENDER_DOMAIN
@_STREAM
@_DRY_RUN
@frame.JSON_LINES
@pass_invocation
def remove_suppressed(
    invocation: Invocation,
    addresses: tuple[str, ...],
    sender_domain: str | None,
    stream: str | None,
    is_dry_run: bool,
    wants_json: bool,
) -> int:
    """Lift suppressions of addresses: all of them, or those of a sender's domain or a stream."""
    wanted = list(dict.fromkeys(map(_mailbox, addresses)))
    with invocation.open_store() as store:
        found = lift_of(
            store,
            wanted,
            sender_domain=sender_domain,
            stream=stream,
            actor=login_name(),
            now_ms=clock_ms(),
            is_dry_run=is_dry_run,
        )
    done = "would be lifted" if is_dry_run else "lifted"
    for suppression in found:
        click.echo(_result(suppression, done) if wants_json else f"{_row(suppression)}: {done}")
    missing = set(wanted) - {suppression.address for suppression in found}
    for address in sorted(missing):
        warn(
            f"{address}: not suppressed, or not for these; relaygw suppress list {address} shows it"
        )
    return os.EX_DATAERR if missing else os.EX_OK


# --- import and export --------------------------------------------------------------------


@suppress.command("import")
@click.argument("file", metavar="FILE", type=click.Path(readable=False))
@_SENDER_DOMAIN
@_STREAM
@click.option("--reason", type=click.Choice([cause.value for cause in Cause]), default="manual",
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
