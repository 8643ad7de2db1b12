"""`relaygw hold`: standing holds of mail, what waits and what comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from relaygw.cli import frame
from relaygw.cli.frame import Group, Invocation, pass_invocation
from relaygw.cli.text import aligned, as_json, print_lines, terminal_width
from relaygw.cli.verbs import command_of
from relaygw.mail.clock import clock_ms, utc_text
from relaygw.mail.standing_hold import StandingHold
from relaygw.mail.words import age, counted
from relaygw.operations.standing_holds import VERBS, hold_object, waiting_of

_WIDTHS = (8, -7, -5, 16)
_LEAST_WORDS = 24


@click.group(cls=Group)
def hold() -> None:
    """Hold all mail that has something in common: what waits, and what comes."""


for _verb in VERBS:
    hold.add_command(command_of(_verb))


@hold.command("list")
@frame.JSON_LINES
@pass_invocation
def list_holds(invocation: Invocation, wants_json: bool) -> None:
    """List the standing holds in force, oldest first."""
    with invocation.open_store() as store:
        holds = waiting_of(store)
    if wants_json:
        print_lines(as_json(hold_object(*pair)) for pair in holds)
    else:
        print_lines(_rows(holds, clock_ms()))


def _rows(holds: Sequence[tuple[StandingHold, int]], now_ms: int) -> Iterator[str]:
    left = terminal_width() - sum(1 + abs(width) for width in _WIDTHS)
    widths = (*_WIDTHS, max(left, _LEAST_WORDS))
    if holds:
        yield aligned(widths, "ID", "WAITING", "SINCE", "UNTIL", "MAIL")
    for standing_hold, waiting in holds:
        until = (
            "ended by hand"
            if standing_hold.until_ms is None
            else utc_text(standing_hold.until_ms, "%m-%d %H:%M")
        )
        what = f"{standing_hold.words}; by {standing_hold.by}" + (
            f": {standing_hold.reason}" if standing_hold.reason else ""
        )
        yield aligned(
            widths,
            standing_hold.hold_id,
            waiting,
            age(now_ms - standing_hold.since_ms),
            until,
            what,
        )
    yield f"-- {counted(len(holds), 'hold')}"
