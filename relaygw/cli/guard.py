"""`relaygw guard`: what is held of sources of mail, and what operators say of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from relaygw.cli import frame
from relaygw.cli.frame import Group, Invocation, pass_invocation
from relaygw.cli.text import aligned, as_json, labelled, print_lines, terminal_width
from relaygw.cli.verbs import command_of
from relaygw.mail.clock import clock_ms
from relaygw.mail.words import age, counted
from relaygw.operations.guard import (
    ALLOW,
    HOLD,
    RELEASE,
    Guarded,
    guarded,
    guarded_object,
    suspects,
)
from relaygw.store.guard import GuardAction
from relaygw.store.watch import Incident

_WIDTHS = (16, 5, -5, -8, -6)
_LEAST_WORDS = 30


@click.group(cls=Group)
def guard() -> None:
    """Show, hold, release and allow sources and classes of mail."""


for _verb in (HOLD, ALLOW, RELEASE):
    guard.add_command(command_of(_verb))


@guard.command("list")
@frame.JSON_LINES
@pass_invocation
def list_guarded(invocation: Invocation, wants_json: bool) -> None:
    """List what is held and allowed, and the alerts of the guard that last."""
    now_ms = clock_ms()
    with invocation.open_store() as store:
        rows, alerts = guarded(store), suspects(store, now_ms)
    if wants_json:
        print_lines(as_json(guarded_object(row)) for row in rows)
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
