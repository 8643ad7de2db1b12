"""`relaygw check`: is the configuration right, what would it do with mail, are providers there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from relaygw.cli.explaining import explain, listener_words, provider_words, web_words
from relaygw.cli.frame import Command, CommandFailed, Invocation, pass_invocation, warn
from relaygw.cli.text import labelled
from relaygw.errors import InvalidAddress, SchemaMismatch, SettingsError, StoreUnavailable

if TYPE_CHECKING:
    from relaygw.settings.load import LoadedSettings
    from relaygw.settings.log import Log
    from relaygw.settings.model import Route, Settings
    from relaygw.settings.secrets import SecretRef


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
@click.option("--listener", metavar="BIND", help="That mail comes in by this listener.")
@click.option("--user", metavar="NAME", help="That mail is from this user.")
@click.option("--online", is_flag=True, help="Ask the providers, too; no mail is sent.")
@click.option("--json", "as_json", is_flag=True, help="With --online: one object a line.")
@pass_invocation
def check(
    invocation: Invocation,
    sender: str | None,
    recipient: str | None,
    headers: dict[str, str],
    listener: str | None,
    user: str | None,
    online: bool,
    as_json: bool,
) -> int:
    """Check the configuration; with --sender and --recipient explain what happens to mail.

    Exit code 69: something failed --online.
    """
    if (sender is None) != (recipient is None) and not (online and sender is not None):
        raise click.UsageError("--sender and --recipient go together; give both")
    if headers and recipient is None:
        raise click.UsageError("--header goes with --sender and --recipient; give them, too")
    if (listener or user) and recipient is None:
        raise click.UsageError("--listener and --user go with --sender and --recipient")
    if as_json and not online:
        raise click.UsageError("--json goes with --online; give it, too")
    loaded = invocation.load()
    if sender is not None:
        sender = "" if sender == "<>" else _address(sender, "--sender")
    if recipient is not None:
        recipient = _address(recipient, "--recipient")
    _check_known(loaded.settings, listener, user)
    if not as_json:
        _tell(loaded, sender, recipient, headers, listener=listener, user=user)
    if recipient is None and not as_json:
        _warn_of_waiting(invocation, loaded)
    if not online:
        return os.EX_OK
    return _check_online(loaded.settings, sender, recipient, headers, as_json=as_json)


def _check_known(settings: Settings, listener: str | None, user: str | None) -> None:
    """Raise CommandFailed for a listener or user that there is not."""
    for option, name, known in (
        ("--listener", listener, [str(one.bind) for one in settings.listeners]),
        ("--user", user, [one.name for one in settings.users]),
    ):
        if name is not None and name not in known:
            raise CommandFailed(
                f"{option} {name!r} is not in the configuration; write one of: "
                + (", ".join(known) or "none yet"),
                exit_code=os.EX_DATAERR,
            )


def _tell(
    loaded: LoadedSettings,
    sender: str | None,
    recipient: str | None,
    headers: dict[str, str],
    *,
    listener: str | None,
    user: str | None,
) -> None:
    if sender is not None and recipient is not None:
        lines = explain(
            loaded.settings,
            sender=sender,
            recipient=recipient,
            headers=headers,
            listener=listener,
            user=user,
        )
    else:
        lines = summary(loaded)
    for line in lines:
        click.echo(line)
    if recipient is None:
        _warn_of_alerts(loaded.settings)
        _warn_of_secrets(loaded.settings)
        _warn_of_certificates(loaded.settings)
        _warn_of_web(loaded.settings)
        _warn_of_log(loaded.settings.log)


def _check_online(
    settings: Settings,
    sender: str | None,
    recipient: str | None,
    headers: dict[str, str],
    *,
    as_json: bool,
) -> int:
    """Check all providers with the senders known, or those of one route with one sender."""
    from relaygw.cli.checking_online import check_online, known_senders, route_of, sender_at

    if sender is not None and recipient is not None:
        route, used = route_of(settings, sender=sender, recipient=recipient, headers=headers)
        names = route.providers if route is not None else ()
        senders = _for_each(names, used)
    elif sender is not None:
        senders = _for_each(settings.providers, sender_at(settings, sender))
    else:
        senders = {name: known_senders(settings, name) for name in settings.providers}
    if not senders:
        warn("no provider is used for this; nothing to check online")
    is_fine = check_online(settings, senders, as_json=as_json)
    return os.EX_OK if is_fine else os.EX_UNAVAILABLE


def _for_each(providers: Iterable[str], sender: str) -> dict[str, tuple[str, ...]]:
    return dict.fromkeys(providers, (sender,))


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
        words = listener_words(listener, has_users=bool(settings.users))
        yield labelled("listener", f"{listener.bind} for {words}")
    base_path = settings.web.base_path.rstrip("/")
    yield labelled("web", f"http://{settings.web.bind}{base_path} for {web_words(settings)}")
    for name, provider in settings.providers.items():
        yield labelled("provider", f"{name}: {provider_words(provider)}")
    for route in settings.routes:
        yield labelled("route", _route_words(route))
    yield from _alert_lines(settings)


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
        *([f"listener {' '.join(map(str, route.listener))}"] if route.listener else []),
        *([f"user {' '.join(route.user)}"] if route.user else []),
    ]
    wanted = " and ".join(conditions) or "everything else"
    return f"{route.name} ({route.stream.value}) to {' '.join(route.providers)}: {wanted}"


def _warn_of_waiting(invocation: Invocation, loaded: LoadedSettings) -> None:
    """Name routes that mail waits on and that are gone; a queue out of reach says nothing."""
    from relaygw.policy.untended import gone_words, known_routes

    try:
        with invocation.open_store(loaded) as store:
            waiting = store.routes_waiting()
    except (StoreUnavailable, SchemaMismatch, SettingsError):
        return
    for route in waiting:
        if route not in known_routes(loaded.settings):
            warn(
                f"warning: mail waits on {gone_words(route)}; once all workers run this one, it "
                "goes by the routes of now, but for what a provider may have taken already"
            )


def _warn_of_certificates(settings: Settings) -> None:
    """Name certificates of listeners that clients would not like."""
    from relaygw.settings.certificates import doubtful_certificates

    for doubt in doubtful_certificates(settings):
        warn(f"warning: {doubt}")


def _warn_of_secrets(settings: Settings) -> None:
    """Name secrets that cannot be read here; commands are not run for a check."""
    for key, secret in _secrets(settings):
        if secret is None or secret.kind == "command":
            continue
        try:
            secret.read()
        except SettingsError as error:
            warn(f"warning: {key}: {error}")


def _secrets(settings: Settings) -> Iterator[tuple[str, SecretRef | None]]:
    for name, provider in settings.providers.items():
        yield f"providers.{name}.password", provider.password
        if provider.oauth is not None:
            yield f"providers.{name}.oauth.client_secret", provider.oauth.client_secret
            yield f"providers.{name}.oauth.refresh_token", provider.oauth.refresh_token
    for number, alert in enumerate(settings.alerts):
        yield f"alerts.{number}.apprise", alert.apprise
        yield f"alerts.{number}.webhook", alert.webhook.reference if alert.webhook else None
    for token in settings.web.tokens:
        yield f"web.tokens.{token.name}", token.token


def _alert_lines(settings: Settings) -> Iterator[str]:
    from relaygw.alerting.opening import target_words
    from relaygw.settings.alerts import channel_name

    for number, alert in enumerate(settings.alerts):
        rules = " ".join(alert.on) or "everything"
        name = channel_name(alert, number)
        yield labelled("alert", f"{name}: {rules} by {target_words(alert)}")


def _warn_of_alerts(settings: Settings) -> None:
    """Name channels that can tell nobody as things are."""
    from relaygw.alerting.opening import problem_of

    for number, alert in enumerate(settings.alerts):
        problem = problem_of(alert, settings)
        if problem is not None:
            warn(f"warning: alerts.{number}.{alert.kind}: {problem}")


def _warn_of_web(settings: Settings) -> None:
    web = settings.web
    if web.has_logins and not (web.bind.is_loopback or web.proxies):
        warn(
            f"warning: web.bind: passwords for {web.bind} cross the network in clear; put a "
            "reverse proxy with TLS before it and name it in web.proxies"
        )


def _warn_of_log(log: Log) -> None:
    """Name a log file that cannot be one; mail would go on, lines would be lost."""
    if log.file is None:
        return
    directory = log.file.parent
    if log.file.is_dir():
        problem = f"is a directory; name a file in it, e.g. file:{log.file}/mail.log"
    elif directory.is_dir():
        return
    elif directory.exists():
        problem = f"{directory} is no directory; name another"
    else:
        problem = (
            f"{directory} does not exist; create it, writable by the user that relaygw runs as"
        )
    warn(f"warning: log.target: {log.target}: {problem}")
