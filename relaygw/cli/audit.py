"""`relaygw audit`: what operators did, and what the configuration became."""

from __future__ import annotations

import click

from relaygw.cli.frame import NUMBER_FROM_1, Command, Invocation, login_name, pass_invocation
from relaygw.cli.selection import DURATION, NOT_EMPTY
from relaygw.cli.text import aligned, as_json, print_lines, terminal_width
from relaygw.mail.clock import clock_ms, rfc3339
from relaygw.mail.words import counted, printable
from relaygw.operations.audit import SETTINGS_CHANGE, audit_object, settings_change_words
from relaygw.store.audit import AuditEntry, Trail
from relaygw.store.store import Store

_CELLS = (19, 10, 15, -6)  # of time, actor, action and number
_FIXED = sum(map(abs, _CELLS)) + 4  # with the spaces
_MIN_REST_CELLS = 20


@click.command(cls=Command)
@click.option(
    "--limit", metavar="N", type=NUMBER_FROM_1, default=100, show_default=True,
    help="At most N entries.",
)  # fmt: skip
@click.option(
    "--since", "since_s", metavar="AGE", type=DURATION,
    help="Not longer ago than AGE: 30s, 5m, 4h, 7d.",
)  # fmt: skip
@click.option("--actor", metavar="TEXT", type=NOT_EMPTY, help="Who did it contains TEXT.")
@click.option(
    "--action", metavar="TEXT", type=NOT_EMPTY,
    help="Action is TEXT, or begins with it: queue matches queue.delete.",
)  # fmt: skip
@click.option("--json", "wants_json", is_flag=True, help="One object a line.")
@pass_invocation
def audit(
    invocation: Invocation,
    limit: int,
    since_s: float | None,
    actor: str | None,
    action: str | None,
    wants_json: bool,
) -> None:
    """Tell what operators did to mail and providers, the newest first.

    Changes of the configuration are among it: when, where, and of which sections.
    """
    since_ms = None if since_s is None else clock_ms() - int(since_s * 1000)
    trail = Trail(since_ms=since_ms, actor=actor, action=action)
    with invocation.open_store() as store:
        entries = store.audit.entries(limit=limit + 1, trail=trail)
    shown = entries[:limit]
    if wants_json:
        print_lines(as_json({**audit_object(one), "detail": _detail(one)}) for one in shown)
        return
    widths = (*_CELLS, max(terminal_width() - _FIXED, _MIN_REST_CELLS))
    if shown:
        click.echo(aligned(widths, "TIME (UTC)", "ACTOR", "ACTION", "NUMBER", "WHAT"))
    for entry in shown:
        at = rfc3339(entry.at_ms)[:19].replace("T", " ")
        # what was asked for, else the first of its targets
        what = _detail(entry) or entry.target
        click.echo(aligned(widths, at, entry.actor, entry.action, entry.affected, what))
    more = ", more match" if len(entries) > limit else ""
    click.echo(f"-- {counted(len(shown), 'entry', 'entries')}{more}")


def _detail(entry: AuditEntry) -> str:
    return settings_change_words(entry.detail) if entry.action == SETTINGS_CHANGE else entry.detail


def note_action(store: Store, action: str, target: str, affected: int, detail: str = "") -> None:
    """Leave in the audit trail what the caller did."""
    entry = AuditEntry(
        at_ms=clock_ms(),
        actor=login_name(),
        action=action,
        target=printable(target),
        affected=affected,
        detail=detail,
    )
    store.audit.add(entry)
