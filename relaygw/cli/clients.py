"""`relaygw clients`: which addresses were throttled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from relaygw.cli.frame import Command, Invocation, pass_invocation
from relaygw.cli.selection import TIME
from relaygw.cli.text import aligned, as_json, labelled, print_lines, terminal_width
from relaygw.mail.clock import clock_ms
from relaygw.mail.words import age, counted
from relaygw.operations.access import (
    CAUSES,
    ExemptNetwork,
    exempt_networks,
    exempt_object,
    throttled_object,
)
from relaygw.operations.selectors import TIMES, read_moment
from relaygw.store.visitors import Throttled

_CLIENT_CELLS = (-7, -6, -6)


@click.command(cls=Command)
@click.option(
    "--since", metavar="T", type=TIME, default="7d", show_default=True,
    help=f"Throttled not before T: {TIMES}.",
)  # fmt: skip
@click.option("--json", "wants_json", is_flag=True, help="JSON, one object.")
@pass_invocation
def clients(invocation: Invocation, since: str, wants_json: bool) -> None:
    """List throttled clients and exempt networks.

    A throttled client of a listener sent more than rate_per_client, opened too many connections,
    or was locked out for failed logins; the latest are listed first.
    """
    loaded, now_ms = invocation.load_running(), clock_ms()
    since_ms = read_moment(since, now_ms=now_ms) or 0
    with invocation.open_store(loaded) as store:
        found = store.visitors.throttled(since_ms)
    exempt = list(exempt_networks(loaded.settings))
    if wants_json:
        told = {"throttled": list(map(throttled_object, found))}
        click.echo(as_json({**told, "exempt": list(map(exempt_object, exempt))}))
    else:
        print_lines(_client_lines(found, exempt, now_ms))


def _client_lines(
    found: Sequence[Throttled], exempt: Sequence[ExemptNetwork], now_ms: int
) -> Iterator[str]:
    left = max(60, terminal_width() - 22)
    widths = (*_CLIENT_CELLS, left // 3, left // 3, left // 3)
    if found:
        yield aligned(widths, "TIMES", "FIRST", "LAST", "CLIENT", "LISTENER", "CAUSE")
    for client in found:
        ages = (age(now_ms - at_ms) for at_ms in (client.first_seen_ms, client.last_seen_ms))
        yield aligned(widths, client.times, *ages, client.client, client.listener, client.cause)
    yield f"-- {counted(len(found), 'throttled client')}"
    for cause in sorted({client.cause for client in found} & {*CAUSES}):
        yield labelled(cause, CAUSES[cause])
    for network in exempt:
        of = " and ".join(network.limits)
        yield labelled("exempt", f"{network.network} at {network.listener} ({network.by}): {of}")
