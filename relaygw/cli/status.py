"""`relaygw status`: one screen about the gateway's processes, providers and queue."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import click

from relaygw import __version__
from relaygw.cli.frame import Command, Invocation, pass_invocation
from relaygw.cli.install_sendmail import maildrop_warnings
from relaygw.cli.provider import hold_line, usage_lines
from relaygw.cli.running_gateway import (
    full_volume_warning,
    mode_warning,
    replaced_warning,
    running_mode,
)
from relaygw.cli.setup_host import start_command
from relaygw.cli.stderr import warn
from relaygw.cli.text import aligned, as_json, labelled, moment, print_lines
from relaygw.errors import StoreUnavailable
from relaygw.mail.state import DeliveryState
from relaygw.mail.words import age, counted, printable, took
from relaygw.observe.maildrop import LeftMail, look_at_maildrop
from relaygw.observe.waits import Waits
from relaygw.operations.queue_object import UNFINISHED
from relaygw.operations.status import Snapshot, lanes_of, status_object, take_snapshot, warnings
from relaygw.settings.load import LoadedSettings
from relaygw.settings.model import Settings

_INSTANCE = (9, 25, -8, 7, 10, 0)
_LANE = (19, 13, -9, -8, -8, -8, -7)


@click.command(cls=Command)
@click.option("--json", "wants_json", is_flag=True, help="JSON, one object.")
@pass_invocation
def status(invocation: Invocation, wants_json: bool) -> None:
    """Show processes, providers, routes and the queue on one screen."""
    loaded = invocation.load_running()
    settings = loaded.settings
    mode = running_mode(settings)
    try:
        with invocation.open_store(loaded) as store:
            snapshot = take_snapshot(store, settings)
    except StoreUnavailable:
        if not wants_json:  # what is known without it
            left = look_at_maildrop(settings.maildrop.path)
            print_lines(chain(_head(settings, mode), _maildrop_lines(left)))
        raise
    if wants_json:
        click.echo(as_json({**status_object(snapshot, settings), "mode": mode}))
        return
    print_lines(_screen(snapshot, loaded, mode))
    sendmail = maildrop_warnings(settings)
    replaced = replaced_warning(settings, is_used=bool(snapshot.instances))
    for text in chain(
        full_volume_warning(loaded),
        replaced,
        warnings(snapshot),
        mode_warning(settings, mode),
        sendmail,
    ):
        warn(f"warning: {text}")


def _screen(snapshot: Snapshot, loaded: LoadedSettings, mode: str) -> Iterator[str]:
    settings = loaded.settings
    yield from _head(settings, mode)
    for lines in (_instance_lines(snapshot, loaded), _provider_lines(snapshot)):
        yield ""
        yield from lines
    yield ""
    yield from _lane_lines(snapshot, settings)
    for untended in snapshot.untended:
        yield labelled("untended", f"{untended.summary}; {untended.remedy}")
    for name, receiver in snapshot.webhooks.items():
        yield labelled("webhook", f"{name}: {receiver.state}, {receiver.waiting_words}")
    yield ""
    yield labelled("sandbox", f"{snapshot.captured} captured, {snapshot.unread} unread")
    yield from _maildrop_lines(snapshot.maildrop)


def _head(settings: Settings, mode: str) -> Iterator[str]:
    yield labelled("relaygw", f"{__version__}, mode {mode}, {settings.hostname}")
    yield labelled("queue", settings.queue.url)


def _maildrop_lines(left: LeftMail | None) -> Iterator[str]:
    if left is None or left.trouble is not None:  # that stands among the warnings
        return
    oldest = f", the oldest for {age(int(left.oldest_age_s * 1000))}" if left.oldest_age_s else ""
    yield labelled("maildrop", f"{left.waiting} waiting, {left.aside} set aside{oldest}")
    for file in left.named:
        yield labelled("", printable(f"{file.name}: {file.reason}"))


def _instance_lines(snapshot: Snapshot, loaded: LoadedSettings) -> Iterator[str]:
    yield aligned(_INSTANCE, "ROLE", "INSTANCE", "PID", " SINCE", "HEARTBEAT", "STATE")
    for instance in snapshot.instances:
        since = age(snapshot.at_ms - instance.started_at_ms)
        beat = age(snapshot.at_ms - instance.heartbeat_at_ms)
        state = printable("silent" if instance.incarnation in snapshot.silent else instance.state)
        yield aligned(
            _INSTANCE, instance.role, instance.name, instance.pid, f" {since}", beat, state
        )
    for gone in snapshot.lost:
        beat = age(snapshot.at_ms - gone.heartbeat_at_ms)
        yield aligned(_INSTANCE, gone.role, gone.name, gone.pid, "", beat, "lost")
    if not snapshot.instances:
        command = start_command(loaded.files[0] if loaded.files else None)
        yield f"nothing is running; start it: {command}"


def _provider_lines(snapshot: Snapshot) -> Iterator[str]:
    for name, usage in snapshot.usages.items():
        state = snapshot.state_of(name)
        where = f"{usage.settings.host}:{usage.settings.port}"
        told = f"{name}: {where}{'' if state == 'ok' else f', {state}'}"
        yield labelled("provider", told + _waits_words(snapshot.waits(name)))
    if not snapshot.usages:
        yield labelled("provider", "none")
    for name, usage in snapshot.usages.items():
        yield from usage_lines(name, usage, snapshot.at_ms)
    for hold in snapshot.holds:
        yield hold_line(hold, snapshot.at_ms, hold.remedy)
    for standing, waiting in snapshot.standing:
        since, until = (
            moment(standing.since_ms, snapshot.at_ms),
            f"it is ended: relaygw hold end {standing.hold_id}",
        )
        if standing.until_ms is not None:
            until = moment(standing.until_ms, snapshot.at_ms)
        why = f", {standing.reason}" if standing.reason else ""
        what = f"{standing.words} since {since} by {standing.by}{why}"
        yield labelled("held", f"{what}; {counted(waiting, 'message')} waiting, until {until}")


def _waits_words(waits: Waits | None) -> str:
    """Return how long mail took in the last hour, "" where none came to its end."""
    if waits is None:
        return ""
    return f", in queue p50 {took(waits.p50_s)}, p95 {took(waits.p95_s)}"


def _lane_lines(snapshot: Snapshot, settings: Settings) -> Iterator[str]:
    lanes = lanes_of(snapshot, settings)
    if not lanes:
        yield labelled("routes", "none")
        return
    yield aligned(_LANE, "ROUTE", "STREAM", *map(str.upper, UNFINISHED), "OLDEST")
    for route, stream in lanes:
        lane = [
            lane_count
            for lane_count in snapshot.lanes
            if (lane_count.route, lane_count.stream) == (route, stream)
        ]
        numbers = {lane_count.state: lane_count.deliveries for lane_count in lane}
        oldest = min((lane_count.oldest_accepted_at_ms for lane_count in lane), default=None)
        shown_age = "-" if oldest is None else age(snapshot.at_ms - oldest)
        yield aligned(
            _LANE, route, stream, *(numbers.get(state, 0) for state in UNFINISHED), shown_age
        )
    if any(lane_count.state is DeliveryState.DEFERRED for lane_count in snapshot.lanes):
        yield labelled("why", "relaygw queue shape --by reason says what deferred mail waits for")
