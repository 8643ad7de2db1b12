"""`relaygw provider`: the providers with their holds, and the presets for new ones."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from relaygw import operations
from relaygw.cli.changing import login_name
from relaygw.cli.entries import as_json
from relaygw.cli.frame import CommandFailed, Group, Invocation, pass_invocation
from relaygw.cli.provider_presets import presets
from relaygw.cli.text import clock_ms, fitted, labelled, moment, rfc3339, terminal_width
from relaygw.store.protocol import Hold

if TYPE_CHECKING:
    from relaygw.settings.provider import Provider

_STATE_WIDTH = 14
_OTHER_COLUMNS = 40  # all but NAME and WHERE, with the spaces between them
_NAME_WIDTHS = (14, 26)  # a name is typed again to release it: whole, if it can be


@click.group(cls=Group)
def provider() -> None:
    """Look at providers, hold and release them."""


provider.add_command(presets)


@provider.command("list")
@click.option("--json", "wants_json", is_flag=True, help="One object a line.")
@pass_invocation
def list_providers(invocation: Invocation, wants_json: bool) -> None:
    """List the providers with their limits, and why one is held."""
    loaded = invocation.load()
    providers = loaded.settings.providers
    with invocation.open_store(loaded) as store:
        holds = store.holds()
    lines = _objects(providers, holds) if wants_json else _rows(providers, holds)
    for line in lines:
        click.echo(line)


def _objects(providers: dict[str, Provider], holds: list[Hold]) -> Iterator[str]:
    for name, one in providers.items():
        mine = operations.holds_of(holds, name)
        shown = one.model_dump(
            mode="json",
            include={
                *("preset", "host", "port", "tls", "account", "max_connections", "rate"),
                *("rate_counts", "daily_quota", "quota_counts", "senders"),
            },
        )
        held = [hold_object(hold) for hold in mine]
        yield as_json({"name": name, "state": _state(mine), "holds": held, **shown})


def hold_object(hold: Hold) -> dict[str, Any]:
    """Return a hold in the form of `--json`."""
    return {
        "scope": hold.scope,
        "key": hold.key,
        "reason": hold.reason,
        "remedy": hold.remedy,
        "since": rfc3339(hold.since_ms),
        "probe_at": None if hold.probe_at_ms is None else rfc3339(hold.probe_at_ms),
    }


def _state(mine: Iterable[Hold]) -> str:
    """Return `ok`, `held`, or `partly held` when only mail of some senders waits."""
    scopes = {hold.scope for hold in mine}
    if not scopes:
        return "ok"
    return "partly held" if scopes == {"sender domain"} else "held"


def _rows(providers: dict[str, Provider], holds: list[Hold]) -> Iterator[str]:
    if not providers:
        yield "no providers; see: relaygw provider presets"
        return
    least, most = _NAME_WIDTHS
    name_width = min(max(least, *map(len, providers)), most)
    where_width = max(terminal_width() - _OTHER_COLUMNS - name_width, 10)
    heads = f"{'CONN':>4} {'RATE':>8} {'QUOTA':>8}"
    yield f"{'NAME':<{name_width}} {'WHERE':<{where_width}} {heads}  STATE"
    for name, one in providers.items():
        state = fitted(_short_state(operations.holds_of(holds, name)), _STATE_WIDTH).rstrip()
        limits = one.model_dump(mode="json", include={"rate", "daily_quota"})
        rate, quota = (str(limits[key] or "-") for key in ("rate", "daily_quota"))
        yield (
            f"{fitted(name, name_width)} {fitted(f'{one.host}:{one.port}', where_width)} "
            f"{one.max_connections:>4} {rate:>8} {quota:>8}  {state}"
        )
    now_ms = clock_ms()
    for name in providers:
        for hold in operations.holds_of(holds, name):
            yield from _hold_lines(name, hold, now_ms)


def _short_state(mine: list[Hold]) -> str:
    state = _state(mine)
    return state if state != "held" else f"held: {mine[0].reason}"


def _hold_lines(name: str, hold: Hold, now_ms: int) -> Iterator[str]:
    what = name if hold.scope == "provider" else f"{hold.scope} {hold.key}"
    probe = ""
    if hold.probe_at_ms is not None:
        probe = f"; tried again at {moment(hold.probe_at_ms, now_ms)}"
    yield ""
    yield labelled("held", f"{what} since {moment(hold.since_ms, now_ms)}: {hold.reason}{probe}")
    if hold.remedy:
        yield labelled("remedy", hold.remedy)


@provider.command()
@click.argument("name")
@click.option("--reason", default="", metavar="TEXT", help="Why; shown with the hold.")
@pass_invocation
def hold(invocation: Invocation, name: str, reason: str) -> None:
    """Send nothing by a provider until it is released; its mail waits."""
    loaded = invocation.load()
    _check_name(name, loaded.settings.providers, ())
    with invocation.open_store(loaded) as store:
        is_new = operations.hold_provider(
            store, name, actor=login_name(), now_ms=clock_ms(), note=reason
        )
    if is_new:
        click.echo(f"{name}: held until: relaygw provider release {name}")
    else:
        click.echo(f"{name}: was held already; the reason is the new one")
    waiting = [route.name for route in loaded.settings.routes if route.providers == (name,)]
    if waiting:
        click.echo(f"mail waits on routes without another provider: {', '.join(waiting)}")


@provider.command()
@click.argument("name")
@pass_invocation
def release(invocation: Invocation, name: str) -> None:
    """End all holds of a provider, its key and its sender domains; mail goes at once."""
    loaded = invocation.load()
    with invocation.open_store(loaded) as store:
        _check_name(name, loaded.settings.providers, store.holds())
        ended = operations.release_provider(store, name, actor=login_name(), now_ms=clock_ms())
    if not ended:
        click.echo(f"{name}: nothing to release, it is not held")
    for one in ended:
        what = "" if one.scope == "provider" else f" ({one.scope} {one.key})"
        click.echo(f"{name}: released{what}; it was held: {one.reason}")


def _check_name(name: str, providers: dict[str, Provider], holds: Iterable[Hold]) -> None:
    """Raise CommandFailed for a name that is neither a provider nor still held as one."""
    if name not in providers and not operations.holds_of(holds, name):
        known = ", ".join(providers) or "none yet"
        raise CommandFailed(
            f"{name}: no such provider; name one of: {known}", exit_code=os.EX_DATAERR
        )
