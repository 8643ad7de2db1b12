"""What a configuration says, and what it does with mail from one address to another, in words.

An explanation follows the same steps as acceptance: rewrite, block and allow, route. Nothing is
sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from relaygw.cli.frame import Invocation
from relaygw.cli.text import labelled
from relaygw.errors import SchemaMismatch, SettingsError, StoreUnavailable
from relaygw.mail.envelope import Source
from relaygw.policy.recipients import Screen
from relaygw.policy.rewriter import Rewriter
from relaygw.policy.router import Explainer
from relaygw.policy.untended import gone_words, known_routes
from relaygw.settings.alerts import channel_name
from relaygw.settings.listener import Listener
from relaygw.settings.load import LoadedSettings
from relaygw.settings.model import Log, Settings
from relaygw.settings.provider import Provider
from relaygw.settings.routes import Route
from relaygw.settings.secrets import SecretRef

_TLS_WORDS = {
    "required": "STARTTLS, verified",
    "implicit": "TLS at once, verified",
    "opportunistic": "STARTTLS if offered, not verified",
    "none": "no TLS",
}
_MODES = {
    "production": "mail is sent",
    "staging": "mail is sent to recipients.allow only ({} entries)",
    "sandbox": "all mail is captured, none is sent",
}


def summary(loaded: LoadedSettings) -> Iterator[str]:
    """Yield what a configuration says, in a few lines."""
    from relaygw.alerting.notifier import target_words

    settings = loaded.settings
    files = ", ".join(map(str, loaded.files)) or "no file: the sandbox"
    yield labelled("ok", files)
    mode = _MODES[settings.mode.value].format(len(settings.recipients.allow))
    yield labelled("mode", f"{settings.mode.value}: {mode}")
    yield labelled("hostname", settings.hostname)
    yield labelled("queue", settings.queue.url)
    for listener in settings.listeners:
        words = _listener_words(listener, has_users=bool(settings.users))
        yield labelled("listener", f"{listener.bind} for {words}")
    base_path = settings.web.base_path.rstrip("/")
    yield labelled("web", f"http://{settings.web.bind}{base_path} for {_web_words(settings)}")
    for name, provider in settings.providers.items():
        yield labelled("provider", f"{name}: {_provider_words(provider)}")
    for route in settings.routes:
        yield labelled("route", _route_words(route))
    for number, alert in enumerate(settings.alerts):
        rules = " ".join(alert.on) or "everything"
        yield labelled("alert", f"{channel_name(alert, number)}: {rules} by {target_words(alert)}")


def _route_words(route: Route) -> str:
    lists = ("sender", "recipient", "listener", "user")
    given = {name: " ".join(map(str, getattr(route, name))) for name in lists}
    conditions = [f"{name} {given[name]}" for name in lists[:2] if given[name]]
    conditions += [f"{name}: {glob}" for name, glob in route.header.items()]
    conditions += [f"{name} {given[name]}" for name in lists[2:] if given[name]]
    wanted = " and ".join(conditions) or "everything else"
    return f"{route.name} ({route.stream.value}) to {' '.join(route.providers)}: {wanted}"


def routes_gone(invocation: Invocation, loaded: LoadedSettings) -> Iterator[str]:
    """Yield a warning for each route that mail waits on and that is gone.

    A queue out of reach says nothing.
    """
    try:
        with invocation.open_store(loaded) as store:
            waiting = store.leases.routes_waiting()
    except (StoreUnavailable, SchemaMismatch, SettingsError):
        return
    for route in waiting:
        if route not in known_routes(loaded.settings):
            yield (
                f"mail waits on {gone_words(route)}; once all workers run this one, it "
                "goes by the routes of now, but for what a provider may have taken already"
            )


def warnings(settings: Settings) -> Iterator[str]:
    """Yield what is allowed and may not be meant, or does not work on this machine."""
    from relaygw.alerting.notifier import problem_of
    from relaygw.settings.certificates import doubtful_certificates

    for number, alert in enumerate(settings.alerts):
        problem = problem_of(alert, settings)
        if problem is not None:
            yield f"alerts.{number}.{alert.kind}: {problem}"
    yield from _unreadable_secrets(settings)
    yield from doubtful_certificates(settings)
    web = settings.web
    if web.has_logins and not (web.bind.is_loopback or web.proxies):
        yield (
            f"web.bind: passwords for {web.bind} cross the network in clear; put a "
            "reverse proxy with TLS before it and name it in web.proxies"
        )
    problem = _log_problem(settings.log)
    if problem is not None:
        yield f"log.target: {settings.log.target}: {problem}"


def _unreadable_secrets(settings: Settings) -> Iterator[str]:
    """Yield secrets that cannot be read here; commands are not run for a check."""
    for key, secret in _secrets(settings):
        if secret is None or secret.kind == "command":
            continue
        try:
            secret.read()
        except SettingsError as error:
            yield f"{key}: {error}"


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


def _log_problem(log: Log) -> str | None:
    """Return why a log file cannot be one; mail would go on, lines would be lost."""
    if log.file is None:
        return None
    directory = log.file.parent
    if log.file.is_dir():
        return f"is a directory; name a file in it, e.g. file:{log.file}/mail.log"
    if directory.is_dir():
        return None
    if directory.exists():
        return f"{directory} is no directory; name another"
    return f"{directory} does not exist; create it, writable by the user that relaygw runs as"


def _provider_words(provider: Provider) -> str:
    auth = "AUTH" if provider.has_credentials else "no AUTH"
    return f"{provider.host}:{provider.port}, {_TLS_WORDS[provider.tls.value]}, {auth}"


def _listener_words(listener: Listener, *, has_users: bool) -> str:
    networks = ", ".join(map(str, listener.allow)) or "nobody"
    # no password is taken in clear over a network
    can_log_in = has_users and (listener.tls.mode != "off" or listener.bind.is_loopback)
    who = {"required": "users only", "off": networks}.get(
        listener.auth, f"{networks} and users" if can_log_in else networks
    )
    tls = {"starttls": ", STARTTLS", "implicit": ", TLS at once"}.get(listener.tls.mode, "")
    balancers = ", behind a balancer" if listener.proxy_protocol else ""
    mode = f", mode {listener.mode.value}" if listener.mode is not None else ""
    return f"{who}{tls}{balancers}{mode}"


def _web_words(settings: Settings) -> str:
    web = settings.web
    if web.has_logins:
        kinds = (("user", len(web.users)), ("token", len(web.tokens)))
        return " and ".join(f"{n} {word}{'s' * (n > 1)}" for word, n in kinds if n)
    if settings.mode.value != "sandbox":
        return "health checks only: there are no web.users"
    return "everyone who can connect" if web.open else "everyone on this machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedMail:
    """The mail that somebody asks about; header names are in lower case."""

    sender: str | None
    recipient: str | None
    headers: Mapping[str, str]
    listener: str | None
    user: str | None


def explain(settings: Settings, mail: AskedMail) -> Iterator[str]:
    """Yield the lines that tell what happens to mail with a sender and a recipient."""
    sender, recipient = mail.sender or "", mail.recipient or ""
    rewriter = Rewriter(settings.rewrite, settings.hostname)
    used_sender = rewriter.sender(sender)
    rewritten = rewriter.recipient(recipient)
    yield labelled("sender", _change(sender or "<>", used_sender or "<>"))
    yield labelled("recipient", _change(recipient, rewritten))
    way = Explainer(settings).way(
        sender=used_sender,
        recipient=rewritten,
        headers=mail.headers,
        listener=mail.listener,
        user=mail.user,
    )
    yield labelled("decision", way.decision)
    yield labelled("route", way.route)
    for name in way.providers:
        yield labelled("provider", f"{name}: {_provider_words(settings.providers[name])}")
    if way.route_name is not None:
        yield from _field_lines(settings, mail)
    if way.unseen_headers:
        names = ", ".join(way.unseen_headers)
        yield labelled("note", f"an earlier route looks at {names}; see --header")


def _field_lines(settings: Settings, mail: AskedMail) -> Iterator[str]:
    source = Source(listener=mail.listener, user=mail.user)
    rule = Screen(settings).field_rule(source, settings.mode)
    if rule is None:
        return
    lines = (f"{name}: {' '.join(value.split())}\r\n" for name, value in mail.headers.items())
    found = rule.look("".join(lines).encode())
    if found.obstacle is not None:
        yield labelled("fields", f"the mail is held: {found.obstacle}")
    elif found.names:
        yield labelled(
            "fields",
            f"left out, as a provider reads recipients there: "
            f"{', '.join(found.names)} ({found.why})",
        )


def _change(given: str, used: str) -> str:
    return f"{given}, as given" if given == used else f"{given} becomes {used} (rewrite)"
