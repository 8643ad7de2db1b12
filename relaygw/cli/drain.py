"""`relaygw drain`: before a machine goes away, get its mail out; for shutdown hooks."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

from relaygw.cli.changing import login_name
from relaygw.cli.drain_report import as_object, read_remains, told
from relaygw.cli.draining import Draining, Look
from relaygw.cli.entries import as_json
from relaygw.cli.frame import PROGRAM, Command, CommandFailed, Invocation, pass_invocation, warn
from relaygw.cli.leaving import leave
from relaygw.cli.text import printable
from relaygw.operations.status import SILENT_AFTER_S
from relaygw.store.protocol import Store, silent_incarnations


def _seconds(_ctx: click.Context, _option: click.Parameter, value: str) -> float:
    from relaygw.settings.units import parse_duration

    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} {error}") from error


@click.command(cls=Command)
@click.option(
    "--wait", "wait_s", metavar="TIME", default="60s", show_default=True, callback=_seconds,
    help="Give up after this time.",
)  # fmt: skip
@click.option(
    "--grace", "grace_s", metavar="TIME", default="5s", show_default=True, callback=_seconds,
    help="On a shared queue: how long new mail is still taken, until no load balancer sends any.",
)  # fmt: skip
@click.option("--json", "wants_json", is_flag=True, help="What is left as one object.")
@pass_invocation
def drain(invocation: Invocation, wait_s: float, grace_s: float, wants_json: bool) -> int:
    """Send what is queued now; return when nothing is left, or time is up.

    On a queue that other instances share this one stops instead, and leaves its mail to them.
    """
    from relaygw import roles

    loaded = invocation.load_running()
    path = loaded.settings.maildrop.path
    maildrop = Path(path) if path else None
    if loaded.settings.queue.is_postgres:
        return leave(
            loaded.state_dir,
            maildrop=maildrop,
            grace_s=grace_s,
            wait_s=wait_s,
            wants_json=wants_json,
        )
    began_s = time.monotonic()
    with invocation.open_store(loaded) as store:
        _check_worker(store)
        draining = Draining(
            store,
            maildrop=maildrop,
            actor=login_name(),
            wake=lambda: roles.wake_workers(loaded),
        )
        progress = _Progress()
        try:
            left = draining.run(wait_s, show=progress.show)
        finally:
            progress.close()
        remains = read_remains(store, left)
    if wants_json:
        click.echo(as_json(as_object(remains, time.monotonic() - began_s)))
    else:
        for line in told(remains, time.monotonic() - began_s):
            click.echo(printable(line))
    return os.EX_OK if left.is_empty else os.EX_TEMPFAIL


def _check_worker(store: Store) -> None:
    instances = store.instances()
    silent = silent_incarnations(instances, SILENT_AFTER_S, now_ms=time.time_ns() // 1_000_000)
    for one in instances:
        if one.role == "delivery" and one.state == "running" and one.incarnation not in silent:
            return
    raise CommandFailed(
        "no delivery worker runs, so nothing can be sent; start it: relaygw serve",
        exit_code=os.EX_UNAVAILABLE,
    )


class _Progress:
    """Says on stderr what is left whenever it changes; on a terminal in one line."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._said = ""

    def show(self, now: Look) -> None:
        text = str(now)
        if text == self._said:
            return
        if self._is_terminal:
            click.echo(f"\r{PROGRAM}: {text:<{len(self._said)}}", err=True, nl=False)
        else:
            warn(text)
        self._said = text

    def close(self) -> None:
        if self._is_terminal and self._said:
            click.echo(err=True)
