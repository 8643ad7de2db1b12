"""`relaygw status`: one screen about the gateway's processes, providers and queue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from relaygw import __version__
from relaygw.cli.entries import as_json
from relaygw.cli.frame import Command, Invocation, pass_invocation, warn
from relaygw.cli.provider_limits import Usage, read_usages, slowed_lines, usage_object
from relaygw.cli.provider_list import hold_object, state_of
from relaygw.cli.text import (
    age,
    clock_ms,
    fitted,
    labelled,
    moment,
    printable,
    rfc3339,
)
from relaygw.mail.search import EVERYTHING
from relaygw.mail.state import DeliveryState
from relaygw.operations import holds_of
from relaygw.store.protocol import Hold, Instance, LaneCount, Store

if TYPE_CHECKING:
    from relaygw.settings.model import Settings

SILENT_AFTER_S = 15.0
"""An instance that did not renew its heartbeat for this long is shown as silent."""

_SHOWN_STATES = (
    DeliveryState.INCOMING,
    DeliveryState.ACTIVE,
    DeliveryState.DEFERRED,
    DeliveryState.HELD,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the store says at one time."""

    at_ms: int
    fingerprint: str
    instances: list[Instance]
    silent: frozenset[str]  # incarnations
    holds: list[Hold]
    usages: dict[str, Usage]  # by the provider's name
    lanes: list[LaneCount]
    captured: int
    unread: int

    def drifted(self) -> list[Instance]:
        """Return the instances that run other routing or policy settings than the file's."""
        return [one for one in self.instances if one.fingerprint != self.fingerprint]


def take_snapshot(store: Store, settings: Settings) -> Snapshot:
    """Ask the store for everything that the screen shows."""
    from relaygw.settings.show import fingerprint

    captured, unread = store.count_captured(EVERYTHING)
    return Snapshot(
        at_ms=clock_ms(),
        fingerprint=fingerprint(settings),
        instances=store.instances(),
        silent=frozenset(store.stale_incarnations(SILENT_AFTER_S)),
        holds=store.holds(),
        usages=read_usages(store, settings.providers),
        lanes=store.counts(),
        captured=captured,
        unread=unread,
    )


@click.command(cls=Command)
@click.option("--json", "wants_json", is_flag=True, help="The whole as one object.")
@pass_invocation
def status(invocation: Invocation, wants_json: bool) -> None:
    """Show processes, providers, routes and the queue on one screen."""
    loaded = invocation.load()
    with invocation.open_store(loaded) as store:
        snapshot = take_snapshot(store, loaded.settings)
    if wants_json:
        click.echo(as_json(as_object(snapshot, loaded.settings)))
        return
    for line in screen(snapshot, loaded.settings):
        click.echo(line)
    for text in warnings(snapshot):
        warn(f"warning: {text}")


def screen(snapshot: Snapshot, settings: Settings) -> Iterator[str]:
    """Yield the lines of the screen."""
    yield labelled("relaygw", f"{__version__}, mode {settings.mode.value}, {settings.hostname}")
    yield labelled("queue", settings.queue.url)
    yield ""
    yield from _instance_lines(snapshot)
    yield ""
    yield from _provider_lines(snapshot)
    yield ""
    yield from _lane_lines(snapshot, settings)
    yield ""
    yield labelled("sandbox", f"{snapshot.captured} captured, {snapshot.unread} unread")


def _instance_lines(snapshot: Snapshot) -> Iterator[str]:
    yield f"{'ROLE':<10}{'INSTANCE':<26}{'PID':>8}  {'SINCE':<7}{'HEARTBEAT':<11}STATE"
    for one in snapshot.instances:
        since = age(snapshot.at_ms - one.started_at_ms)
        beat = age(snapshot.at_ms - one.heartbeat_at_ms)
        state = "silent" if one.incarnation in snapshot.silent else one.state
        yield (
            f"{fitted(one.role, 9)} {fitted(one.name, 25)} {one.pid:>8}  "
            f"{since:<7}{beat:<11}{printable(state)}"
        )
    if not snapshot.instances:
        yield "nothing runs; start it: relaygw serve"


def _provider_lines(snapshot: Snapshot) -> Iterator[str]:
    for name, usage in snapshot.usages.items():
        state = state_of(holds_of(snapshot.holds, name), usage)
        where = f"{usage.settings.host}:{usage.settings.port}"
        yield labelled("provider", f"{name}: {where}{'' if state == 'ok' else f', {state}'}")
    if not snapshot.usages:
        yield labelled("provider", "none")
    for name, usage in snapshot.usages.items():
        yield from slowed_lines(name, usage, snapshot.at_ms)
    for hold in snapshot.holds:
        since = moment(hold.since_ms, snapshot.at_ms)
        text = f"{hold.scope} {hold.key} since {since}: {hold.reason}"
        yield labelled("held", f"{text}; {hold.remedy}" if hold.remedy else text)


def _lane_lines(snapshot: Snapshot, settings: Settings) -> Iterator[str]:
    if not _lanes(snapshot, settings):
        yield labelled("routes", "none")
        return
    heads = "".join(f"{state.value.upper():>9}" for state in _SHOWN_STATES)
    yield f"{'ROUTE':<20}{'STREAM':<14}{heads}{'OLDEST':>8}"
    for route, stream in _lanes(snapshot, settings):
        lane = [one for one in snapshot.lanes if (one.route, one.stream) == (route, stream)]
        numbers = {one.state: one.deliveries for one in lane}
        oldest = min((one.oldest_accepted_at_ms for one in lane), default=None)
        counts = "".join(f"{numbers.get(state, 0):>9}" for state in _SHOWN_STATES)
        shown_age = "-" if oldest is None else age(snapshot.at_ms - oldest)
        yield f"{fitted(route, 19)} {fitted(stream, 13)} {counts}{shown_age:>8}"


def _lanes(snapshot: Snapshot, settings: Settings) -> list[tuple[str, str]]:
    """Return the routes of the configuration, then others that still have mail."""
    configured = [(route.name, route.stream.value) for route in settings.routes]
    return list(dict.fromkeys([*configured, *((one.route, one.stream) for one in snapshot.lanes)]))


def warnings(snapshot: Snapshot) -> Iterator[str]:
    """Yield what an operator should look at."""
    for role in ("front", "delivery"):
        alive = [one for one in snapshot.instances if one.incarnation not in snapshot.silent]
        if snapshot.instances and not any(one.role == role for one in alive):
            yield f"no {role} runs; start it: relaygw serve --role {role}"
    drifted = snapshot.drifted()
    if drifted:
        names = ", ".join(f"{one.role} {one.pid} on {one.name}" for one in drifted)
        yield f"{names}: run other routing or policy settings than the file; reload or restart"


def as_object(snapshot: Snapshot, settings: Settings) -> dict[str, Any]:
    """Return the screen in the form of `--json`."""
    drifted = {one.incarnation for one in snapshot.drifted()}
    return {
        "version": __version__,
        "mode": settings.mode.value,
        "hostname": settings.hostname,
        "queue": settings.queue.url,
        "fingerprint": snapshot.fingerprint,
        "instances": [
            {
                "role": one.role,
                "name": one.name,
                "incarnation": one.incarnation,
                "pid": one.pid,
                "version": one.version,
                "state": one.state,
                "started_at": rfc3339(one.started_at_ms),
                "heartbeat_at": rfc3339(one.heartbeat_at_ms),
                "is_silent": one.incarnation in snapshot.silent,
                "fingerprint": one.fingerprint,
                "has_drifted": one.incarnation in drifted,
            }
            for one in snapshot.instances
        ],
        "providers": [
            {
                "name": name,
                "host": usage.settings.host,
                "port": usage.settings.port,
                "state": state_of(holds_of(snapshot.holds, name), usage),
                **usage_object(usage),
            }
            for name, usage in snapshot.usages.items()
        ],
        "holds": [hold_object(hold) for hold in snapshot.holds],
        "lanes": [
            {
                "route": lane.route,
                "stream": lane.stream,
                "state": lane.state.value,
                "deliveries": lane.deliveries,
                "oldest_accepted_at": rfc3339(lane.oldest_accepted_at_ms),
            }
            for lane in snapshot.lanes
        ],
        "captured": snapshot.captured,
        "unread": snapshot.unread,
    }
