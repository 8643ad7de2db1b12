"""`relaygw drain`: before a machine goes away, get its mail out; for shutdown hooks.

Waits until nothing is left to send, and makes deferred mail due meanwhile. The running workers
send; this only looks, and asks them to try again. Mail in doubt may have been taken by its
provider: it is hurried once, as an operator would, and never again and again.

On a shared queue this instance leaves instead, the others have its mail. First /readyz says no, so
that a load balancer sends nobody here any more, and the maildrop, which only this machine
reads, goes into the queue; then the gateway gets TERM: sessions finish, what is being sent ends,
the rest of the leases goes back.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from relaygw import service_file
from relaygw.cli.drain_report import Left, as_object, count_drops, count_left, read_remains, told
from relaygw.cli.frame import (
    PROGRAM,
    Command,
    CommandFailed,
    Invocation,
    login_name,
    pass_invocation,
    warn,
)
from relaygw.cli.selection import PAGE_MESSAGES, take_duration
from relaygw.cli.text import as_json, printable
from relaygw.errors import StoreUnavailable
from relaygw.mail.clock import clock_ms
from relaygw.mail.state import DeliveryState
from relaygw.operations.queue_actions import RETRY, Order, change_queued
from relaygw.operations.status import SILENT_AFTER_S
from relaygw.store.instances import silent_incarnations
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.selection import Selection
from relaygw.store.store import Store

RETRY_EVERY_S = 5.0
"""How long deferred mail waits before it is made due once more: nobody is to be hammered."""
_LOOK_S = 0.25
_SOON_MS = 1000  # mail that is due so soon needs no help
_LOOK_SHARE = 4  # of a large queue, looking takes at most one part in so many and one

_D = DeliveryState
_STEP_S = 0.1


@click.command(cls=Command)
@click.option(
    "--wait", "wait_s", metavar="TIME", default="60s", show_default=True, callback=take_duration,
    help="Give up after this time.",
)  # fmt: skip
@click.option(
    "--grace", "grace_s", metavar="TIME", default="5s", show_default=True, callback=take_duration,
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
        run = Drain(
            store,
            maildrop=maildrop,
            actor=login_name(),
            wake=lambda: roles.wake_workers(loaded),
        )
        progress = _Progress()
        try:
            left = run.run(wait_s, show=progress.show)
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
    instances = store.instances.registered()
    silent = silent_incarnations(instances, SILENT_AFTER_S, now_ms=clock_ms())
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

    def show(self, now: Left) -> None:
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


class Drain:
    """Waits for an empty queue. `wake` is called whenever mail was made due."""

    def __init__(
        self, store: Store, *, maildrop: Path | None, actor: str, wake: Callable[[], None]
    ) -> None:
        self._store = store
        self._maildrop = maildrop
        self._actor = actor
        self._wake = wake
        self._rounds = 0

    def run(self, wait_s: float, *, show: Callable[[Left], None]) -> Left:
        """Return what is left when nothing is left to send, or after `wait_s`.

        A store that is busy is asked again. Raises StoreUnavailable when it stays so.
        """
        deadline_s = time.monotonic() + wait_s
        retried_s = float("-inf")
        while True:
            began_s = time.monotonic()
            try:
                if began_s - retried_s >= RETRY_EVERY_S:
                    self._make_due()
                    retried_s = time.monotonic()
                now = count_left(self._store, self._maildrop)
                show(now)
                if now.is_over or time.monotonic() >= deadline_s:
                    return now
            except StoreUnavailable:
                if time.monotonic() >= deadline_s:
                    raise
            took_s = time.monotonic() - began_s
            left_s = deadline_s - time.monotonic()
            time.sleep(max(0.0, min(left_s, max(_LOOK_S, _LOOK_SHARE * took_s))))

    def _make_due(self) -> None:
        """Make deferred mail due now."""
        selection = Selection(states=frozenset({_D.DEFERRED}))
        order = Order(actor=self._actor, detail="drain", is_forced=True)  # once: _may_be_made_due
        now_ms = clock_ms()
        after = ""
        while page := self._store.queue.search(selection, limit=PAGE_MESSAGES, after=after):
            after = page[-1].queue_id
            ids = [entry.queue_id for entry in page if self._may_be_made_due(entry, now_ms)]
            if ids:
                change_queued(self._store, RETRY, ids, order, now_ms=now_ms)
        self._rounds += 1
        self._wake()

    def _may_be_made_due(self, entry: QueueEntry, now_ms: int) -> bool:
        waiting = [part for part in entry.deliveries if part.state is _D.DEFERRED]
        if not any(part.due_at_ms > now_ms + _SOON_MS for part in waiting):
            return False
        return self._rounds == 0 or not any(part.is_in_doubt for part in waiting)


def leave(
    state_dir: Path, *, maildrop: Path | None, grace_s: float, wait_s: float, wants_json: bool
) -> int:
    """Stop the gateway of a state directory within `wait_s`; return the exit code."""
    began_s = time.monotonic()
    pid = service_file.running_service(state_dir)
    if pid is None:
        raise CommandFailed(
            f"no gateway runs with the state in {state_dir}; name its file: --config FILE",
            exit_code=os.EX_UNAVAILABLE,
        )
    deadline_s = began_s + wait_s
    mark = service_file.draining_mark(state_dir)
    mark.touch(mode=0o600)
    try:
        warn(f"not ready any more; stopping in {grace_s:g} s")
        time.sleep(min(grace_s, wait_s))
        # half of what is left of the time, so that the other half is there to stop in
        turn_s = (time.monotonic() + deadline_s) / 2
        while count_drops(maildrop) and time.monotonic() < turn_s:
            time.sleep(_STEP_S)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        while service_file.running_service(state_dir) == pid:
            if time.monotonic() >= deadline_s:
                raise CommandFailed(
                    f"process {pid} has not ended within {wait_s:g} s; what it holds goes to the "
                    "other instances when it does, or 20 s after it is killed",
                    exit_code=os.EX_TEMPFAIL,
                )
            time.sleep(_STEP_S)
    finally:
        mark.unlink(missing_ok=True)
    files = count_drops(maildrop)
    if wants_json:
        waited_s = round(time.monotonic() - began_s, 3)
        click.echo(as_json({"drained": not files, "waited_s": waited_s, "maildrop": files}))
    elif not files:
        click.echo("stopped; the other instances have its mail")
    if files:
        warn(
            f"stopped, but {files} messages lie in the maildrop {maildrop} of this machine, where "
            "no other instance sees them; start the gateway again and then: relaygw drain"
        )
    return os.EX_TEMPFAIL if files else os.EX_OK
