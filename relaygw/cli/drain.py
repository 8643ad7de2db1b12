"""`relaygw drain`: before a machine goes away, get its mail out; for shutdown hooks.

The running workers send; this only looks, and makes deferred mail due. Mail in doubt may have been
taken by its provider: it is hurried once, as an operator would, and never again and again.

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
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from relaygw import service_file
from relaygw.cli import frame
from relaygw.cli.selection import DURATION
from relaygw.cli.stderr import PROGRAM, warn
from relaygw.cli.text import as_json, first_of, print_lines
from relaygw.errors import StoreUnavailable
from relaygw.mail.clock import clock_ms
from relaygw.mail.drop import is_complete
from relaygw.mail.state import OPEN, DeliveryState
from relaygw.mail.words import fields, printable
from relaygw.operations.providers import obeyed
from relaygw.operations.queue_actions import RETRY, Order, change_queued, found_batches
from relaygw.operations.status import SILENT_AFTER_S, silent_words
from relaygw.policy.untended import AWAY_REMEDY, away_words
from relaygw.settings.model import Settings
from relaygw.store.home import home_elsewhere
from relaygw.store.instances import silent_incarnations
from relaygw.store.queue import LaneCount
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.selection import Selection
from relaygw.store.store import Store

RETRY_EVERY_S = 5.0
"""How long deferred mail waits before it is made due again: no provider is hammered."""
_LOOK_S = 0.25
_SOON_MS = 1000  # mail that is due so soon needs no help
_LOOK_SHARE = 4  # of a large queue, looking takes at most one part in so many and one
_MAX_READ = 1000  # messages whose reasons are told
_MAX_REASONS = 10
_STEP_S = 0.1
_D = DeliveryState


@click.command(cls=frame.Command)
@click.option(
    "--wait", "wait_s", metavar="TIME", default="60s", show_default=True, type=DURATION,
    help="Give up after TIME.",
)  # fmt: skip
@click.option(
    "--grace", "grace_s", metavar="TIME", default="5s", show_default=True, type=DURATION,
    help="On a shared queue: how long new mail is accepted, for load balancers to turn away.",
)  # fmt: skip
@click.option("--json", "wants_json", is_flag=True, help="What is left, as one JSON object.")
@frame.pass_invocation
def drain(invocation: frame.Invocation, wait_s: float, grace_s: float, wants_json: bool) -> int:
    """Send all queued mail; return when the queue is empty or time is up.

    On a queue shared with other instances, this one stops instead and leaves its mail to them.
    """
    from relaygw import roles

    loaded = invocation.load_running()
    path = loaded.settings.maildrop.path
    maildrop = Path(path) if path else None
    began_s = time.monotonic()
    if loaded.settings.queue.is_postgres:
        files = _leave(loaded.state_dir, maildrop, grace_s, began_s=began_s, wait_s=wait_s)
        if wants_json:
            waited_s = round(time.monotonic() - began_s, 3)
            click.echo(as_json({"drained": not files, "waited_s": waited_s, "maildrop": files}))
        elif not files:
            click.echo("stopped; the other instances have its mail")
        return os.EX_TEMPFAIL if files else os.EX_OK
    with invocation.open_store(loaded) as store:
        _check_worker(store)
        if (home := home_elsewhere(store.homes, loaded.settings)) is not None:
            warn(f"warning: {away_words(printable(home.owner))}; {AWAY_REMEDY}")
        progress = _Progress()
        wake = partial(roles.wake_workers, loaded)
        actor = frame.login_name()
        run = Drain(store, loaded.settings, maildrop=maildrop, actor=actor, wake=wake)
        try:
            left = run.run(wait_s, show=progress.show)
        finally:
            progress.close()
        remains = _remains(store, loaded.settings, left, time.monotonic() - began_s)
    print_lines([as_json(remains)] if wants_json else map(printable, _told(left, remains)))
    return os.EX_OK if left.is_empty else os.EX_TEMPFAIL


def _check_worker(store: Store) -> None:
    instances = store.instances.registered()
    silent = silent_incarnations(instances, SILENT_AFTER_S, now_ms=clock_ms())
    running = [
        instance
        for instance in instances
        if instance.role == "delivery" and instance.state == "running"
    ]
    if all(instance.incarnation in silent for instance in running):
        problem = "no delivery worker runs, so nothing can be sent; start it: relaygw serve"
        raise frame.CommandFailed(
            silent_words("delivery") if running else problem, exit_code=os.EX_UNAVAILABLE
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


@dataclass(slots=True)
class Drain:
    """Waits for an empty queue. `wake` is called whenever mail was made due."""

    store: Store
    settings: Settings
    maildrop: Path | None
    actor: str
    wake: Callable[[], None]
    _rounds: int = 0

    def run(self, wait_s: float, *, show: Callable[[Left], None]) -> Left:
        """Return the rest when nothing is left to send, or after `wait_s`.

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
                # the maildrop first, since mail goes from there into the queue
                files = count_drops(self.maildrop)
                now = Left(files=files, lanes=tuple(self.store.queue.counts()))
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
        selection = Selection(states=frozenset({_D.DEFERRED}))
        # once: _may_be_made_due
        order = Order(actor=self.actor, detail="drain", is_forced=True, pauses_of=self.settings)
        now_ms = clock_ms()
        for batch in found_batches(self.store, selection):
            page = self.store.queue.entries(batch)
            ids = [entry.queue_id for entry in page if self._may_be_made_due(entry, now_ms)]
            change_queued(self.store, RETRY, ids, order, now_ms=now_ms)
        self._rounds += 1
        self.wake()

    def _may_be_made_due(self, entry: QueueEntry, now_ms: int) -> bool:
        waiting = [part for part in entry.deliveries if part.state is _D.DEFERRED]
        if not any(part.due_at_ms > now_ms + _SOON_MS for part in waiting):
            return False
        return self._rounds == 0 or not any(part.is_in_doubt for part in waiting)


def _leave(
    state_dir: Path, maildrop: Path | None, grace_s: float, *, began_s: float, wait_s: float
) -> int:
    """Stop the gateway of a state directory within `wait_s`; return what is in the maildrop."""
    pid = service_file.running_service(state_dir)
    if pid is None:
        raise frame.CommandFailed(
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
                raise frame.CommandFailed(
                    f"process {pid} has not ended within {wait_s:g} s; its leases go to the other "
                    "instances when it ends, or 20 s after it is killed",
                    exit_code=os.EX_TEMPFAIL,
                )
            time.sleep(_STEP_S)
    finally:
        mark.unlink(missing_ok=True)
    files = count_drops(maildrop)
    if files:
        warn(
            f"stopped, but {files} messages are in the maildrop {maildrop} of this machine, where "
            "no other instance finds them; start the gateway again and then: relaygw drain"
        )
    return files


# --- what is left, and why -----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What is left at one moment."""

    files: int  # in the maildrop
    lanes: tuple[LaneCount, ...]

    @property
    def is_empty(self) -> bool:
        """True when nothing is left, held mail included."""
        return not self.files and not self.lanes

    @property
    def is_over(self) -> bool:
        """True when waiting changes nothing: no mail is left that anything would send."""
        return not self.files and all(lane.state is _D.HELD for lane in self.lanes)

    def __str__(self) -> str:
        numbers: Counter[DeliveryState] = Counter()
        for lane in self.lanes:
            numbers[lane.state] += lane.deliveries
        waiting = numbers[_D.INCOMING] + numbers[_D.DEFERRED]
        return (
            f"{self.files} in the maildrop, {waiting} waiting, {numbers[_D.ACTIVE]} being sent, "
            f"{numbers[_D.HELD]} held"
        )


def count_drops(maildrop: Path | None) -> int:
    """Return how many messages are in the maildrop, 0 without one.

    Raises CommandFailed if nobody may know.
    """
    if maildrop is None:
        return 0
    try:
        with os.scandir(maildrop) as entries:
            return sum(is_complete(entry.name) for entry in entries)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise frame.CommandFailed(
            f"maildrop {maildrop}: {error.strerror}; run this as relaygw's user",
            exit_code=os.EX_UNAVAILABLE,
        ) from error


def _remains(store: Store, settings: Settings, left: Left, waited_s: float) -> dict[str, Any]:
    """Return the rest and the reasons, in the form of JSON."""
    reasons: Counter[tuple[str, str]] = Counter()
    held = []
    for entry in [] if left.is_empty else store.queue.search(Selection(), limit=_MAX_READ):
        for part in entry.deliveries:
            if part.state is _D.HELD:
                about = {"route": part.route, "reason": part.reason or ""}
                held.append({"queue_id": entry.queue_id, **about})
            elif part.state in OPEN:
                # mail that was made due has only its recipients' replies
                mine = (
                    recipient
                    for recipient in entry.recipients
                    if recipient.delivery_no == part.delivery_no
                )
                told = filter(
                    None, (part.reason, *(recipient_entry.reply for recipient_entry in mine))
                )
                reasons[part.route, next(told, "not tried yet")] += 1
    most = reasons.most_common(_MAX_REASONS)
    holds = [] if left.is_empty else obeyed(store.holds.in_force(), settings.providers)
    return {
        "drained": left.is_empty,
        "waited_s": round(waited_s, 3),
        "maildrop": left.files,
        "lanes": [fields(lane, "route", "stream", "state", "deliveries") for lane in left.lanes],
        "reasons": [{"route": route, "reason": why, "deliveries": n} for (route, why), n in most],
        "held": held,
        "holds": [fields(hold, "scope", "key", "reason", "remedy") for hold in holds],
    }


def _told(left: Left, remains: dict[str, Any]) -> Iterator[str]:
    if left.is_empty:
        yield "drained: nothing is left"
        return
    yield f"not drained after {remains['waited_s']:.0f} s: {left}"
    for lane in left.lanes:
        yield f"route {lane.route} ({lane.stream}): {lane.deliveries} {lane.state.value}"
    for reason in remains["reasons"]:
        yield "route {route}: {deliveries} of these: {reason}".format_map(reason)
    for hold in remains["holds"]:
        yield "{scope} {key} is held: {reason}; {remedy}".format_map(hold)
    held = "{queue_id} is held on route {route}: {reason}; see: relaygw queue release"
    yield from first_of([held.format_map(message) for message in remains["held"]], "more held")
    if left.files:
        yield "the maildrop is not empty: relaygw status shows why"
