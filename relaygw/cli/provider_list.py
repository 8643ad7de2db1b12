"""`relaygw provider list`: each provider with its limits, and why it is held or slowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from relaygw import operations
from relaygw.cli.entries import as_json
from relaygw.cli.frame import Command, Invocation, pass_invocation
from relaygw.cli.provider_limits import quota_line, slowed_lines
from relaygw.cli.text import clock_ms, fitted, labelled, moment, terminal_width
from relaygw.operations.provider_usage import Usage, provider_object, read_usages, state_of
from relaygw.store.protocol import Hold

if TYPE_CHECKING:
    from relaygw.settings.provider import Provider

_STATE_WIDTH = 14
_OTHER_COLUMNS = 40  # all but NAME and WHERE, with the spaces between them
NAME_WIDTHS = (14, 26)
"""A name is typed again, to release it for one: shown whole, if it can be."""


@click.command("list", cls=Command)
@click.option("--json", "wants_json", is_flag=True, help="One object a line.")
@pass_invocation
def list_providers(invocation: Invocation, wants_json: bool) -> None:
    """List the providers with their limits, and why one is held or slowed."""
    loaded = invocation.load_running()
    providers = loaded.settings.providers
    with invocation.open_store(loaded) as store:
        holds = store.holds()
        usages = read_usages(store, providers)
    lines = _objects(usages, holds) if wants_json else _rows(usages, holds)
    for line in lines:
        click.echo(line)


def _objects(usages: Mapping[str, Usage], holds: list[Hold]) -> Iterator[str]:
    for name, usage in usages.items():
        yield as_json(provider_object(name, usage, operations.holds_of(holds, name)))


def _rows(usages: Mapping[str, Usage], holds: list[Hold]) -> Iterator[str]:
    if not usages:
        yield "no providers; see: relaygw provider presets"
        return
    least, most = NAME_WIDTHS
    name_width = min(max(least, *map(len, usages)), most)
    where_width = max(terminal_width() - _OTHER_COLUMNS - name_width, 10)
    heads = f"{'CONN':>4} {'RATE':>8} {'QUOTA':>8}"
    yield f"{'NAME':<{name_width}} {'WHERE':<{where_width}} {heads}  STATE"
    for name, usage in usages.items():
        one = usage.settings
        state = _short_state(operations.holds_of(holds, name), usage)
        yield (
            f"{fitted(name, name_width)} {fitted(f'{one.host}:{one.port}', where_width)} "
            f"{_limits(one)}  {fitted(state, _STATE_WIDTH).rstrip()}"
        )
    yield from _notes(usages, holds)


def _limits(one: Provider) -> str:
    limits = one.model_dump(mode="json", include={"rate", "daily_quota"})
    rate, quota = (str(limits[key] or "-") for key in ("rate", "daily_quota"))
    return f"{one.max_connections:>4} {rate:>8} {quota:>8}"


def _short_state(mine: list[Hold], usage: Usage) -> str:
    state = state_of(mine, usage)
    return state if state != "held" else f"held: {mine[0].reason}"


def _notes(usages: Mapping[str, Usage], holds: list[Hold]) -> Iterator[str]:
    """Yield what does not fit a row, below all of them: use of quotas, then all trouble."""
    now_ms = clock_ms()
    used = [(name, one) for name, one in usages.items() if one.settings.daily_quota is not None]
    if used:
        yield ""
    for name, usage in used:
        yield quota_line(name, usage)
    for name, usage in usages.items():
        if usage.is_slowed:
            yield ""
        yield from slowed_lines(name, usage, now_ms)
        for hold in operations.holds_of(holds, name):
            yield from _hold_lines(name, hold, now_ms)


def _hold_lines(name: str, hold: Hold, now_ms: int) -> Iterator[str]:
    what = name if hold.scope == "provider" else f"{hold.scope} {hold.key}"
    probe = ""
    if hold.probe_at_ms is not None and hold.probe_at_ms > now_ms:
        probe = f"; tried again at {moment(hold.probe_at_ms, now_ms)}"
    elif hold.probe_at_ms is not None:
        probe = "; it is due to be tried again"
    yield ""
    yield labelled("held", f"{what} since {moment(hold.since_ms, now_ms)}: {hold.reason}{probe}")
    if hold.remedy:
        yield labelled("remedy", hold.remedy)
