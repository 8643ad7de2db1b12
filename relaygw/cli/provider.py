"""`relaygw provider`: look at providers, hold and release them, and the presets for new ones."""

from __future__ import annotations

import click

from relaygw import operations
from relaygw.cli.changing import login_name, wake_workers
from relaygw.cli.frame import Group, Invocation, pass_invocation
from relaygw.cli.provider_list import list_providers
from relaygw.cli.provider_names import check_name
from relaygw.cli.provider_presets import presets
from relaygw.cli.provider_senders import senders
from relaygw.cli.text import clock_ms


@click.group(cls=Group)
def provider() -> None:
    """Look at providers, hold and release them."""


provider.add_command(list_providers)
provider.add_command(presets)
provider.add_command(senders)


@provider.command()
@click.argument("name")
@click.option("--reason", default="", metavar="TEXT", help="Why; shown with the hold.")
@pass_invocation
def hold(invocation: Invocation, name: str, reason: str) -> None:
    """Send nothing by a provider until it is released; its mail waits."""
    loaded = invocation.load_running()
    check_name(name, loaded.settings.providers, ())
    with invocation.open_store(loaded) as store:
        is_new = operations.hold_provider(
            store, name, actor=login_name(), now_ms=clock_ms(), note=reason
        )
    if is_new:
        click.echo(f"{name}: held until: relaygw provider release {name}")
        click.echo(
            "workers begin nothing more by it after about a second; what is being sent then ends "
            "as it would"
        )
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
    loaded = invocation.load_running()
    with invocation.open_store(loaded) as store:
        held = [name] if operations.holds_of(store.holds(), name) else []
        check_name(name, loaded.settings.providers, held)
        ended = operations.release_provider(store, name, actor=login_name(), now_ms=clock_ms())
    if ended:
        wake_workers()
    if not ended:
        click.echo(f"{name}: nothing to release, it is not held")
    for one in ended:
        what = "" if one.scope == "provider" else f" ({one.scope} {one.key})"
        click.echo(f"{name}: released{what}; it was held: {one.reason}")
