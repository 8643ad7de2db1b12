"""`relaygw check`: is the configuration right, and what would it do with an address pair."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from relaygw.cli.explaining import explain, provider_words
from relaygw.cli.frame import Command, CommandFailed, Invocation, pass_invocation, warn
from relaygw.cli.text import labelled
from relaygw.errors import InvalidAddress, SettingsError

if TYPE_CHECKING:
    from relaygw.settings.load import LoadedSettings
    from relaygw.settings.model import Route, Settings


def _header(
    _ctx: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    headers: dict[str, str] = {}
    for value in values:
        name, colon, body = value.partition(":")
        if not colon or not name.strip():
            raise click.BadParameter(f"{value!r} is not a header; write 'NAME: VALUE'")
        headers.setdefault(name.strip().lower(), body.strip())
    return headers


@click.command(cls=Command)
@click.option("--sender", metavar="A", help="Explain mail from A; <> is the null sender.")
@click.option("--recipient", metavar="B", help="Explain mail to B.")
@click.option(
    "--header", "headers", metavar="LINE", multiple=True, callback=_header,
    help="A header of that mail: 'NAME: VALUE'; may be repeated.",
)  # fmt: skip
@click.option("--online", is_flag=True, help="Not in this version yet.")
@pass_invocation
def check(
    invocation: Invocation,
    sender: str | None,
    recipient: str | None,
    headers: dict[str, str],
    online: bool,
) -> None:
    """Check the configuration; with --sender and --recipient explain what happens to mail."""
    if online:
        raise click.UsageError("--online is not in this version yet")
    if (sender is None) != (recipient is None):
        raise click.UsageError("--sender and --recipient go together; give both")
    if headers and sender is None:
        raise click.UsageError("--header goes with --sender and --recipient; give them, too")
    loaded = invocation.load()
    if sender is None or recipient is None:
        lines = summary(loaded)
    else:
        lines = explain(
            loaded.settings,
            sender="" if sender == "<>" else _address(sender, "--sender"),
            recipient=_address(recipient, "--recipient"),
            headers=headers,
        )
    for line in lines:
        click.echo(line)
    if sender is None:
        _warn_of_secrets(loaded.settings)


def _address(text: str, option: str) -> str:
    from relaygw.mail.address import check_address

    bare = text.removeprefix("<").removesuffix(">")
    try:
        if not bare:
            raise InvalidAddress("it is empty")
        check_address(bare)
    except InvalidAddress as error:
        raise CommandFailed(
            f"{option} {text!r} is not an address: {error}; write LOCALPART@DOMAIN",
            exit_code=os.EX_DATAERR,
        ) from error
    return bare


def summary(loaded: LoadedSettings) -> Iterator[str]:
    """Yield what a configuration says, in a few lines."""
    settings = loaded.settings
    files = ", ".join(map(str, loaded.files)) or "no file: the sandbox"
    yield labelled("ok", files)
    yield labelled("mode", f"{settings.mode.value}: {_mode_words(settings)}")
    yield labelled("hostname", settings.hostname)
    yield labelled("queue", settings.queue.url)
    for listener in settings.listeners:
        networks = ", ".join(map(str, listener.allow)) or "nobody"
        yield labelled("listener", f"{listener.bind} for {networks}")
    yield labelled("web", f"http://{settings.web.bind}")
    for name, provider in settings.providers.items():
        yield labelled("provider", f"{name}: {provider_words(provider)}")
    for route in settings.routes:
        yield labelled("route", _route_words(route))


def _mode_words(settings: Settings) -> str:
    entries = len(settings.recipients.allow)
    return {
        "production": "mail is sent",
        "staging": f"mail is sent to recipients.allow only ({entries} entries)",
        "sandbox": "all mail is captured, none is sent",
    }[settings.mode.value]


def _route_words(route: Route) -> str:
    conditions = [
        *([f"sender {' '.join(route.sender)}"] if route.sender else []),
        *([f"recipient {' '.join(route.recipient)}"] if route.recipient else []),
        *(f"{name}: {glob}" for name, glob in route.header.items()),
    ]
    wanted = " and ".join(conditions) or "everything else"
    return f"{route.name} ({route.stream.value}) to {' '.join(route.providers)}: {wanted}"


def _warn_of_secrets(settings: Settings) -> None:
    """Name secrets that cannot be read here; commands are not run for a check."""
    for name, provider in settings.providers.items():
        secret = provider.password
        if secret is None or secret.kind == "command":
            continue
        try:
            secret.read()
        except SettingsError as error:
            warn(f"warning: providers.{name}.password: {error}")
