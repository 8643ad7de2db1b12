"""`relaygw guard`: what is held of sources of mail, and what operators say of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import click

from relaygw.cli import frame
from relaygw.cli.frame import CommandFailed, Group, Invocation, login_name, pass_invocation
from relaygw.cli.text import aligned, as_json, labelled, print_lines, terminal_width
from relaygw.mail.clock import clock_ms
from relaygw.mail.words import age, counted
from relaygw.operations import sources as operations
from relaygw.operations.sources import Guarded, UnknownTarget
from relaygw.store.guard import GuardAction
from relaygw.store.store import Store
from relaygw.store.watch import Incident

_WIDTHS = (16, 5, -5, -8, -6)
_LEAST_WORDS = 30
_IDS = click.argument("ids", metavar="ID...", nargs=-1, required=True)
_DRY_RUN = click.option("--dry-run", "is_dry_run", is_flag=True, help="Only show how much mail.")


@click.group(cls=Group)
def guard() -> None:
    """Show, hold, release and allow sources and classes of mail."""


@guard.command("list")
@frame.JSON_LINES
@pass_invocation
def list_guarded(invocation: Invocation, wants_json: bool) -> None:
    """List what is held and allowed, and the alerts of the guard that last."""
    now_ms = clock_ms()
    with invocation.open_store() as store:
        rows, alerts = operations.guarded(store), operations.suspects(store, now_ms)
    if wants_json:
        print_lines(as_json(operations.guarded_object(row)) for row in rows)
    else:
        print_lines(_guard_lines(rows, alerts, now_ms))


def _guard_lines(rows: Sequence[Guarded], alerts: Sequence[Incident], now_ms: int) -> Iterator[str]:
    left = max(terminal_width() - sum(1 + abs(width) for width in _WIDTHS), _LEAST_WORDS)
    widths = (*_WIDTHS, left)
    if rows:
        yield aligned(widths, "ID", "STATE", "SINCE", "PER HOUR", "HELD", "WHAT")
    for row in rows:
        entry = row.entry
        state = "held" if entry.action is GuardAction.HOLD else "may"
        per_hour = "" if entry.per_hour is None else entry.per_hour
        what = (
            f"{entry.reason}; {entry.label}" if entry.reason else f"{entry.label}; by {entry.actor}"
        )
        yield aligned(
            widths, entry.target, state, age(now_ms - entry.at_ms), per_hour, row.held, what
        )
    for alert in alerts:
        yield labelled("alert", alert.summary)
        yield labelled("remedy", alert.remedy)
    yield f"-- {counted(len(rows), 'entry', 'entries')}, {counted(len(alerts), 'alert')}"


@guard.command("hold")
@_IDS
@click.option("--all", "is_all", is_flag=True, help="All mail of a source, not only what is new.")
@click.option("--reason", default="", metavar="TEXT", help="The reason, shown with the mail.")
@_DRY_RUN
@pass_invocation
def hold(
    invocation: Invocation, ids: tuple[str, ...], is_all: bool, reason: str, is_dry_run: bool
) -> int:
    """Hold mail of classes, or of sources their templates that are not a day old."""
    loaded = invocation.load_running()
    if not loaded.settings.counts_sources:
        raise CommandFailed(
            "nothing is counted, so no class of mail is known; set guard.action to alert or hold"
        )

    def hold_one(store: Store, target: str) -> str:
        entry, number = operations.hold_mail(
            store, target, is_all=is_all, note=reason, actor=login_name(), now_ms=clock_ms()
        )
        whose = "" if entry.new_since_ms is None else ", templates of the last day"
        waiting = counted(number, "message")
        return f"{target}: held from now on: {entry.label}{whose}; {waiting} that waited held, too"

    return _each(invocation, ids, hold_one, is_dry_run=is_dry_run)


@guard.command("allow")
@_IDS
@click.option(
    "--per-hour", metavar="N", type=frame.NUMBER_FROM_1,
    help="At most N; else four times the busiest hour of the last day.",
)  # fmt: skip
@click.option("--remove", "is_removing", is_flag=True, help="Judge it as others again.")
@_DRY_RUN
@pass_invocation
def allow(
    invocation: Invocation,
    ids: tuple[str, ...],
    per_hour: int | None,
    is_removing: bool,
    is_dry_run: bool,
) -> int:
    """Let sources or classes send more than others; what is held of them is released."""
    settings = invocation.load_running().settings

    def allow_one(store: Store, target: str) -> str:
        actor, now_ms = login_name(), clock_ms()
        if is_removing:
            was = operations.forget_allowed(store, target, actor=actor, now_ms=now_ms)
            return f"{target}: {'is judged as others again' if was else 'was not allowed'}"
        entry, number = operations.allow_mail(
            store, target, settings.guard, per_hour=per_hour, actor=actor, now_ms=now_ms
        )
        return (
            f"{target}: may send {entry.per_hour} messages an hour: {entry.label}; "
            f"{counted(number, 'message')} released"
        )

    return _each(invocation, ids, allow_one, is_dry_run=is_dry_run)


@guard.command("release")
@_IDS
@_DRY_RUN
@pass_invocation
def release(invocation: Invocation, ids: tuple[str, ...], is_dry_run: bool) -> int:
    """Release what is held; what the guard held or alerts about is allowed from now on."""
    settings = invocation.load_running().settings

    def release_one(store: Store, target: str) -> str:
        entry, number = operations.release_mail(
            store, target, settings.guard, actor=login_name(), now_ms=clock_ms()
        )
        learnt = "" if entry is None else f"; it may send {entry.per_hour} an hour from now on"
        return f"{target}: {counted(number, 'message')} released{learnt}"

    return _each(invocation, ids, release_one, is_dry_run=is_dry_run)


def _each(
    invocation: Invocation,
    ids: Sequence[str],
    act: Callable[[Store, str], str],
    *,
    is_dry_run: bool,
) -> int:
    """Act on each id; 65 where one is not known."""
    code = os.EX_OK
    with invocation.open_store() as store:
        held = {row.entry.target: row.held for row in operations.guarded(store)}
        for target in dict.fromkeys(ids):
            try:
                if is_dry_run:
                    what = operations.label_of(store, target)
                    click.echo(f"{target}: {what}; {counted(held.get(target, 0), 'message')} held")
                else:
                    click.echo(act(store, target))
            except UnknownTarget as error:
                click.echo(f"error: {error}", err=True)
                code = os.EX_DATAERR
    if not is_dry_run:
        invocation.wake_workers()
    return code
