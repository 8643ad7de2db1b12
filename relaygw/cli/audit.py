"""`relaygw audit`: who did what."""

from __future__ import annotations

import click

from relaygw.cli import frame
from relaygw.cli.frame import Command, Invocation, pass_invocation
from relaygw.cli.selection import NOT_EMPTY, TIME
from relaygw.cli.text import as_json, cut, labelled, print_lines
from relaygw.mail.clock import clock_ms, rfc3339
from relaygw.mail.words import counted
from relaygw.operations.audit import audit_object, deed_of, settings_change_words
from relaygw.operations.selectors import TIMES, read_moment
from relaygw.policy.settings_change import SETTINGS_CHANGE
from relaygw.store.audit import AuditEntry, Trail

_TIME_CELLS = 20
_MAX_CELLS = 400  # of a sentence


@click.command(cls=Command)
@frame.limit_option(100, "entries")
@click.option(
    "--who", "--actor", "actor", metavar="TEXT", type=NOT_EMPTY,
    help="The actor's name contains TEXT.",
)  # fmt: skip
@click.option(
    "--action", metavar="TEXT", type=NOT_EMPTY,
    help="The action is TEXT or begins with it: queue matches queue.delete.",
)  # fmt: skip
@click.option("--since", metavar="T", type=TIME, help=f"Not before T: {TIMES}.")
@click.option("--until", metavar="T", type=TIME, help="Not after T; a day means its end.")
@frame.JSON_LINES
@pass_invocation
def audit(
    invocation: Invocation,
    limit: int,
    actor: str | None,
    action: str | None,
    since: str | None,
    until: str | None,
    wants_json: bool,
) -> None:
    """List what operators did to mail and providers, newest first.

    It includes changes to the configuration: when, on which host, in which sections.
    """
    now_ms = clock_ms()
    trail = Trail(
        since_ms=read_moment(since, now_ms=now_ms) if since else None,
        until_ms=read_moment(until, now_ms=now_ms, is_end=True) if until else None,
        actor=actor,
        action=action,
    )
    with invocation.open_store() as store:
        entries = store.audit.entries(limit=limit + 1, trail=trail)
    shown = entries[:limit]
    if wants_json:
        print_lines(
            as_json({**audit_object(audit_entry), "detail": _detail(audit_entry)})
            for audit_entry in shown
        )
        return
    if shown:
        click.echo(f"{'TIME (UTC)':<{_TIME_CELLS}}WHAT")
    for entry in shown:
        at, text = rfc3339(entry.at_ms)[:19].replace("T", " "), cut(deed_of(entry).text, _MAX_CELLS)
        click.echo(labelled(at, text, label_cells=_TIME_CELLS, breaks_words=True))
    more = ", more match" if len(entries) > limit else ""
    click.echo(f"-- {counted(len(shown), 'entry', 'entries')}{more}")


def _detail(entry: AuditEntry) -> str:
    return settings_change_words(entry.detail) if entry.action == SETTINGS_CHANGE else entry.detail
