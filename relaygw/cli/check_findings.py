"""What `relaygw check` finds beside the settings: one mail's way, secrets, events, a driver."""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from relaygw import state_owner
from relaygw.cli.frame import Invocation, act_as_owner
from relaygw.cli.running_gateway import missing_file
from relaygw.cli.setup_host import (
    closed_directories,
    is_of_service,
    service_variables,
    user_entry,
    user_of_unit,
    writable_directories,
)
from relaygw.cli.text import labelled
from relaygw.errors import (
    PackageMissing,
    SchemaMismatch,
    SettingsError,
    StoreUnavailable,
    UnfitServer,
)
from relaygw.mail.envelope import Source
from relaygw.mail.suppression import Action
from relaygw.policy.recipients import Screen
from relaygw.policy.rewriting import Rewriter
from relaygw.policy.router import Explainer, Way
from relaygw.reach import is_own
from relaygw.service_file import environ_of, running_gateways, user_name
from relaygw.settings.addresses import EVERY_SENDER, is_loopback_host
from relaygw.settings.certificates import certificate_files
from relaygw.settings.load import DEFAULT_FILE, LoadedSettings, parts_directory
from relaygw.settings.loops import listening_at, looping_binds
from relaygw.settings.model import Settings
from relaygw.settings.presets import presets
from relaygw.settings.secrets import (
    CREDENTIALS,
    HANDED,
    SERVICE_USER,
    SecretRef,
    hidden_words,
    is_directory,
    place_below,
    secrets_of,
    sharing_command,
    split_command,
)
from relaygw.settings.section import Mode
from relaygw.settings.tree import shown_keys
from relaygw.settings.web import MIN_TOKEN_LENGTH
from relaygw.store.store import check_driver

_SECRETS = "/etc/relaygw/secrets"
_SYSTEM_DEPTH = 3
"""Parts of a path such as /var/log, which has files of others and never changes its owner."""


@dataclass(frozen=True, slots=True)
class AskedMail:
    """What is known of it; nothing: no mail is asked about."""

    sender: str | None = None
    recipient: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case
    listener: str | None = None
    user: str | None = None


def ways_of(settings: Settings, mail: AskedMail) -> tuple[str, dict[str, Way]]:
    """Return the sender and each recipient as they are rewritten, and the ways of the mail."""
    rewriter, explainer = Rewriter(settings.rewrite, settings.hostname), Explainer(settings)
    sender = rewriter.sender(mail.sender or "")
    ways = {
        recipient: explainer.way(
            sender=sender,
            recipient=recipient,
            headers=mail.headers,
            listener=mail.listener,
            user=mail.user,
        )
        for recipient in rewriter.recipients(mail.recipient or "")
    }
    return sender, ways


def field_lines(settings: Settings, mail: AskedMail) -> Iterator[str]:
    """Yield what is said of its header."""
    source = Source(listener=mail.listener, user=mail.user)
    rule = Screen(settings).field_rule(source, settings.mode)
    if rule is None:
        return
    lines = (f"{name}: {' '.join(value.split())}\r\n" for name, value in mail.headers.items())
    found = rule.look("".join(lines).encode())
    if found.obstacle is not None:
        yield labelled("fields", f"the mail is held: {found.obstacle}")
    elif found.names:
        names = ", ".join(found.names)
        words = f"left out, because a provider would read recipients from it: {names} ({found.why})"
        yield labelled("fields", words)


def change(given: str, used: str) -> str:
    """Return an address, and what it was rewritten to."""
    return f"{given}, as given" if given == used else f"{given} becomes {used} (rewrite)"


def suppression_lines(
    invocation: Invocation, loaded: LoadedSettings, mail: AskedMail
) -> Iterator[str]:
    """Yield which of its recipients are suppressed; a queue out of reach says nothing."""
    sender, ways = ways_of(loaded.settings, mail)
    streams = {route.name: route.stream.value for route in loaded.settings.routes}
    routed = {
        recipient: streams[way.route_name] for recipient, way in ways.items() if way.route_name
    }
    if not routed:
        return
    try:
        with invocation.open_store(loaded) as store:
            look = store.suppressions.listed_for
            found = [
                look([recipient], sender=sender, stream=stream).get(recipient)
                for recipient, stream in routed.items()
            ]
    except (StoreUnavailable, SchemaMismatch, SettingsError):
        return
    for listed in filter(None, found):
        what = "not sent" if listed.action is Action.BLOCK else "sent with a warning"
        yield labelled("suppressed", f"{what}: {listed.sentence.partition(': ')[2]}")


def program_problems(_: Settings) -> Iterator[str]:
    """Yield what of the program is not there, and would be missed only when it is needed."""
    from relaygw.late_packages import missing_parts

    yield from missing_parts()


def queue_problems(settings: Settings) -> Iterator[str]:
    """Yield that the driver of PostgreSQL is missing where the queue needs it; nobody is asked."""
    try:
        check_driver(settings.queue.url)
    except PackageMissing as error:
        yield f"queue.url: {settings.queue.url} is in PostgreSQL, and {error}"


def server_findings(loaded: LoadedSettings) -> tuple[list[str], list[str]]:
    """Return the reasons why a PostgreSQL server cannot have the queue, and why mail waits.

    One out of reach says nothing.
    """
    from relaygw import roles

    try:
        _, shortage = roles.share_of_connections(loaded)
    except UnfitServer as error:
        return [f"queue.url: {error}"], []
    except (StoreUnavailable, SettingsError):
        return [], []
    return [], [f"queue.url: {shortage}"] if shortage is not None else []


def file_problems(loaded: LoadedSettings, hidden: Collection[str] = ()) -> Iterator[str]:
    """Yield files of the configuration that the service cannot read, as whose user this acts.

    Also a directory of them that it cannot list, and a file that is gone; nothing of the rights
    of what is `hidden`: see `hidden_files`.
    """
    used = {DEFAULT_FILE, *(Path(gateway.config) for gateway in running_gateways(os.environ))}
    # beside the service's own file another one is a draft that somebody looks at
    is_draft = is_of_service(DEFAULT_FILE) and not used & {*loaded.files}
    parts = [parts_directory(file) for file in loaded.files[:1]]
    for file in () if is_draft else (*filter(is_directory, parts), *loaded.files):
        rights = os.R_OK | (os.X_OK if file in parts else 0)
        if str(file) not in hidden and not os.access(file, rights):
            yield (
                f"{user_name(os.geteuid())} may not read {file}; run as root: "
                f"{sharing_command(file)}"
            )
    service = user_entry(SERVICE_USER)
    if not is_draft and service is not None and os.geteuid() == service.pw_uid:
        for keys, certificate in certificate_files(loaded.settings).items():
            shown, is_listeners = shown_keys(keys), keys[0] == "listeners"
            if is_listeners and shown not in hidden and not os.access(certificate, os.R_OK):
                yield (
                    f"{shown}: {SERVICE_USER} may not read {certificate}; run as root: "
                    f"{sharing_command(Path(certificate))}"
                )
    yield from missing_file(loaded)


def loop_problems(settings: Settings) -> Iterator[str]:
    """Yield which providers are this gateway itself; nobody is asked, no DNS either."""
    for name, provider in settings.providers.items():
        host, port = provider.host, provider.port
        bind = listening_at(host, port, looping_binds(settings, name))
        if bind is not None and (bind.is_loopback or is_loopback_host(host) or is_own(host)):
            yield (
                f"providers.{name}.host: {host}:{port} is the listener {bind} of this gateway: "
                "mail for it would come back until it bounces; write host and port of your mail "
                "service"
            )


def loop_doubts(settings: Settings) -> Iterator[str]:
    """Yield which providers have the gateway's own name, and the port of a listener."""
    for name, provider in settings.providers.items():
        binds = looping_binds(settings, name)
        is_open = any(bind.port == provider.port and not bind.is_loopback for bind in binds)
        if is_open and provider.host.lower() == settings.hostname.lower():
            yield (
                f"providers.{name}.host: {provider.host} is the gateway's own hostname, and port "
                f"{provider.port} that of a listener: if it is this gateway, mail for it would "
                "come back until it bounces; write host and port of your mail service"
            )


def closed_places(loaded: LoadedSettings) -> Iterator[tuple[bool, str]]:
    """Yield what the service writes to and may not, each with whether it cannot start so.

    This process acts as its user.
    """
    settings, user = loaded.settings, user_name(os.geteuid())
    log, maildrop = settings.log.file, settings.maildrop.path
    queue = [loaded.state_dir]
    if not settings.queue.is_postgres:
        queue.append(Path(settings.queue.url.removeprefix("sqlite:///")))
    places = [("queue.url", loaded.state_dir, queue, "/var/lib/relaygw")]
    if maildrop is not None:
        places.append(
            ("maildrop.path", Path(maildrop), [Path(maildrop)], "/var/spool/relaygw/maildrop")
        )
    if log is not None:
        written = [log if os.access(log, os.F_OK) else log.parent]
        places.append(("log.target", log.parent, written, "/var/log/relaygw"))
    entry = service_user(loaded)
    is_service = entry is not None and entry.pw_uid == os.geteuid()
    for key, directory, written, usual in places:
        is_vital = key == "queue.url"
        if problem := _closed_by_systemd(loaded, key, directory):
            yield is_vital, problem
            continue
        for place in written:
            rights = os.R_OK | os.W_OK | (os.X_OK if is_directory(place) else 0)
            if os.access(place, os.F_OK) and not os.access(place, rights):
                remedy = f"run as root: chown {user} {shlex.quote(str(place))}"
                if len(directory.parts) <= _SYSTEM_DEPTH:
                    remedy = f"{directory} is the system's: use {usual}"
                yield (
                    is_vital and is_service,
                    f"{key}: {user} may not write to {place}; {remedy}",
                )


def _closed_by_systemd(loaded: LoadedSettings, key: str, directory: Path) -> str | None:
    """Return why the service may not write to a directory that its user may write to."""
    if not (loaded.files and is_of_service(loaded.files[0])):
        return None
    hidden = place_below(str(directory), closed_directories())
    if hidden is not None:
        words = hidden_words(str(directory), hidden)
        return f"{key}: {words}; use another place, such as /var/lib/relaygw"
    writable = writable_directories()
    if not writable or place_below(str(directory), writable) is not None:
        return None
    shown = shlex.quote(str(directory))
    making = f"run: install -d -m 700 -o {user_name(os.geteuid())} {shown}, and "
    return (
        f"{key}: systemd lets the service write below {', '.join(writable)} only, not to "
        f"{directory}; use one, or {'' if is_directory(directory) else making}add "
        f"ReadWritePaths={directory} by: systemctl edit relaygw"
    )


def service_user(loaded: LoadedSettings) -> pwd.struct_passwd | None:
    """Return as whom the service of these settings runs; None for root, and without a service."""
    return user_of_unit() if loaded.files and is_of_service(loaded.files[0]) else None


def act_as_service(loaded: LoadedSettings) -> None:
    """Let root act as who runs the service of these settings, else as `act_as_owner` says.

    The queue may have been put into the directory of somebody else.
    """
    entry = service_user(loaded)
    if entry is None:
        act_as_owner(loaded)
    else:
        state_owner.become_user(entry)


def take_variables_of_service(loaded: LoadedSettings) -> list[str]:
    """Let secrets be read here as the service reads them at its next start, or a gateway that runs.

    Of the variables that secrets name this process has those of the service, and no others. Only
    root, or the gateway's user with its capabilities, can see them. Return which secrets a service
    that runs does not have as its next start will.
    """
    settings = loaded.settings
    named = {
        keys: secret.target for keys, secret in secrets_of(settings).items() if secret.kind == "env"
    }
    wanted = {"CREDENTIALS_DIRECTORY", *named.values()}
    running: dict[str, str] | None = None
    for gateway in running_gateways(os.environ):
        if gateway.queue == settings.queue.url:
            with contextlib.suppress(OSError):  # it is another user's
                running = environ_of(gateway)
                _take_variables(wanted, running)
    if os.getuid() != 0 or not loaded.files or not is_of_service(loaded.files[0]):
        return []
    at_start = service_variables()  # of its next start: files may have changed since the last
    _take_variables(
        wanted - {"CREDENTIALS_DIRECTORY"}, {name: value for name, (value, _) in at_start.items()}
    )
    if running is None:
        return []
    changed = {
        keys: at_start[name][1]
        for keys, name in named.items()
        if name in at_start and running.get(name) != at_start[name][0]
    }
    secrets = secrets_of(settings)
    for keys, secret in secrets.items():
        if secret.kind == "credential" and secret.target.startswith(HANDED):
            given = CREDENTIALS / secret.target.removeprefix(HANDED)
            handed = Path(running.get("CREDENTIALS_DIRECTORY", ""), secret.target)
            with contextlib.suppress(OSError):
                if handed.read_bytes() != given.read_bytes():
                    changed[keys] = str(given)
    return [
        f"{shown_keys(keys)}: {secrets[keys]}: the service that runs does not have it as {place} "
        "has it now; run: systemctl restart relaygw"
        for keys, place in changed.items()
    ]


def _take_variables(wanted: set[str], environ: Mapping[str, str]) -> None:
    """Have those of the wanted variables in this process that `environ` has, and no others."""
    for name in wanted:
        os.environ.pop(name, None)
    os.environ.update({name: environ[name] for name in wanted & environ.keys()})


def unreadable_secrets(settings: Settings) -> Iterator[str]:
    """Yield secrets that cannot be read here; commands are not run for a check."""
    has_public_events = settings.events.bind is not None and not settings.events.bind.is_loopback
    for keys, secret in secrets_of(settings).items():
        is_problem = has_public_events and keys[-2:] == ("events", "secret")
        if keys[0] != "webhooks" and not is_problem:
            yield from _unreadable(shown_keys(keys), secret)
        yield from _padded(shown_keys(keys), secret)
    yield from _webhooks_unread(settings)


def _unreadable(key: str, secret: SecretRef) -> Iterator[str]:
    """Yield why a secret cannot be read here, if it cannot."""
    if secret.kind == "command":
        return
    try:
        secret.read()
    except SettingsError as error:
        yield f"{key}: {error}"


def _padded(key: str, secret: SecretRef) -> Iterator[str]:
    """Yield that a blank at an end of a secret is sent as a part of it; reads the secret."""
    with contextlib.suppress(SettingsError):  # told as unreadable
        if secret.kind != "command" and (text := secret.read()) != text.strip(" \t"):
            yield (
                f"{key}: {secret}: the secret begins or ends with a blank, which is sent as a part "
                "of it; remove the blank"
            )


def hidden_files(loaded: LoadedSettings) -> dict[str, str]:
    """Return why systemd keeps the service from files that its user may read or run.

    By the key of a secret or certificate, by its path for a file or directory of the configuration.
    """
    if not loaded.files or not is_of_service(loaded.files[0]):
        return {}
    closed = closed_directories()
    parts = parts_directory(loaded.files[0])
    files = {str(file): (str(file), "/etc/relaygw") for file in (parts, *loaded.files)}
    for keys, secret in secrets_of(loaded.settings).items():
        if secret.kind == "file":
            files[shown_keys(keys)] = secret.target, _SECRETS
        elif secret.kind == "command":
            files[shown_keys(keys)] = split_command(secret.target)[0], "/usr/local/bin"
    for keys, file in certificate_files(loaded.settings).items():
        files[shown_keys(keys)] = file, _SECRETS
    return {
        key: f"{key}: {hidden_words(file, hidden)}; keep it in {directory}"
        for key, (file, directory) in files.items()
        if file.startswith("/") and (hidden := place_below(file, closed)) is not None
    }


def short_tokens(settings: Settings) -> Iterator[str]:
    """Yield tokens for the pages that let nobody log in; reads them."""
    for token in settings.web.tokens:
        with contextlib.suppress(SettingsError):  # told as unreadable
            if token.token.kind != "command" and len(token.token.read()) < MIN_TOKEN_LENGTH:
                yield (
                    f"web.tokens.{token.name}: lets nobody log in: it has fewer than "
                    f"{MIN_TOKEN_LENGTH} characters; make another, e.g. by: openssl rand -hex 20"
                )


def web_doubts(settings: Settings) -> Iterator[str]:
    """Yield what keeps the pages from being safe, or reached, at the address that people open."""
    web, url = settings.web, urlsplit(settings.web.url or "")
    is_reached = web.has_logins and not web.bind.is_loopback
    if is_reached and all(network.is_loopback for network in web.proxies):
        remedy = (
            f"write bind: 127.0.0.1:{web.bind.port}, where the proxy of web.proxies finds it"
            if web.proxies
            else "put a reverse proxy with TLS in front of it and list it in web.proxies"
        )
        yield f"web.bind: passwords for {web.bind} cross the network in clear text; {remedy}"
    if url.scheme == "https" and not web.proxies:
        yield (
            "web.url: is https, which a reverse proxy answers, and web.proxies names none, so that "
            "everybody seems to come from it, without TLS; list its address in web.proxies"
        )
    if url.hostname and url.hostname not in {host.strip("[]").lower() for host in web.hosts}:
        yield (
            f"web.url: {url.hostname} is not in web.hosts, so that its pages answer 421 unless the "
            "proxy names another host; add it to web.hosts"
        )


def lonely_listeners(settings: Settings) -> Iterator[str]:
    """Yield that a listener can be reached by others, and takes no mail of them."""
    for number, listener in enumerate(settings.listeners):
        is_closed = all(network.is_loopback for network in listener.allow)
        has_logins = settings.users and listener.auth != "off" and not listener.is_clear
        if is_closed and not has_logins and not listener.bind.is_loopback:
            yield (
                f"listeners.{number}.allow: {listener.bind} can be reached from elsewhere, and "
                "takes mail of this machine only; add the networks of your application servers, "
                f"or write bind: 127.0.0.1:{listener.bind.port}"
            )


def unused_allow(settings: Settings) -> Iterator[str]:
    """Yield that a list of who may receive protects nobody, or that nobody is on it."""
    if settings.mode is Mode.STAGING and not settings.recipients.allow:
        yield (
            "recipients.allow: is empty, so that nobody receives anything and all mail is "
            "captured; list your testers, e.g. [ann@example.com, '@example.com']"
        )
    if settings.recipients.allow and Mode.STAGING not in {
        settings.mode,
        *(listener.mode for listener in settings.listeners),
        *(user.mode for user in settings.users),
    }:
        yield (
            f"recipients.allow: is for mode staging, and nothing here has it; in mode "
            f"{settings.mode} it keeps nobody from receiving, nor lets anybody"
        )


def idle_values(settings: Settings) -> Iterator[str]:
    """Yield values that have no effect, or another one than whoever wrote them can have meant."""
    for number, route in enumerate(settings.routes[:-1]):  # the last one is for all
        for key in ("sender", "recipient", "header", "listener", "user"):
            if key in route.model_fields_set and not getattr(route, key):
                yield (
                    f"routes.{number}.{key}: is empty, which is no condition; remove it, or write "
                    "what is meant"
                )
    if settings.retry.lifetime <= settings.retry.first:
        yield (
            "retry.lifetime: is not longer than retry.first, so that nothing is tried twice; write "
            "e.g. 5d"
        )
    if settings.hostname.lower().startswith("localhost") and settings.mode is not Mode.SANDBOX:
        yield (
            f"hostname: providers are greeted as {settings.hostname}, which many refuse; write the "
            "name of this machine in DNS"
        )
    rewrite = settings.rewrite
    for name, entries in (("senders", rewrite.senders), ("recipients", rewrite.recipients)):
        is_plain = not any(key.startswith(("@", EVERY_SENDER)) for key in entries)
        for key, target in entries.items():
            # where an entry is for more, this is an exception from it
            if target in (key, (key,)) and is_plain and not rewrite.recipient_delimiter:
                yield f"rewrite.{name}.{key}: is rewritten to itself; remove it"


def idle_providers(settings: Settings) -> Iterator[str]:
    """Yield providers that no route names."""
    named = {name for route in settings.routes for name in route.providers}
    for name in settings.providers.keys() - named:
        yield f"providers.{name}: no route names it, so it gets no mail; add it to a route"


def token_doubts(settings: Settings) -> Iterator[str]:
    """Yield why certificates for access tokens may be refused; reads their keys."""
    for name, provider in settings.providers.items():
        oauth = provider.oauth
        if oauth is not None and oauth.certificate is not None and oauth.key is not None:
            from relaygw.upstream.client_assertion import certificate_doubts

            for doubt in certificate_doubts(oauth.certificate, oauth.key):
                yield f"providers.{name}.oauth.certificate: {doubt}"


def _webhooks_unread(settings: Settings) -> Iterator[str]:
    for number, webhook in enumerate(settings.webhooks):
        url = webhook.url.reference
        for key, secret, read in (
            ("url", url, webhook.read_url),
            ("secret", webhook.secret, webhook.read_keys),
        ):
            try:
                if secret.kind != "command":
                    read()
            except SettingsError as error:
                yield f"webhooks.{number}.{key}: {error}"


def events_words(settings: Settings) -> str | None:
    """Return the paths that the listener for events serves, None without one."""
    names = [name for name, provider in settings.providers.items() if provider.events is not None]
    if settings.events.bind is None:
        return None
    return f"http://{settings.events.bind}/events/ for {', '.join(names)}"


def events_problems(settings: Settings) -> Iterator[str]:
    """Yield why a listener that may be public could never believe a provider; reads secrets."""
    if settings.events.bind is None or settings.events.bind.is_loopback:
        return
    yield from _unusable_secrets(settings)
    for name, provider in settings.providers.items():
        if provider.events is not None and provider.events.secret is not None:
            yield from _unreadable(f"providers.{name}.events.secret", provider.events.secret)


def _unusable_secrets(settings: Settings) -> Iterator[str]:
    from relaygw.feedback.receiving import settings_problems

    for name, problem in settings_problems(settings).items():
        yield f"providers.{name}.events.secret: {problem}"


def events_doubts(settings: Settings) -> Iterator[str]:
    """Yield why events may not come, or may not be believed; reads secrets."""
    if settings.events.bind is None or settings.events.bind.is_loopback:
        yield from _unusable_secrets(settings)  # else they are problems
    for name, provider in settings.providers.items():
        if provider.events is None:
            continue
        mark = presets()[provider.preset or ""].mark
        header = mark.needs_header if mark is not None else None
        has_header = any(
            field_name.lower() == (header or "").lower() for field_name in provider.headers
        )
        if header is not None and not has_header:
            yield (
                f"providers.{name}.events: {provider.preset} reports only mail with {header}; add "
                f"headers: {{{header}: NAME}}, unless the shop or the account sets it"
            )
        if settings.events.bind is None and not settings.queue.is_postgres:
            yield (
                f"providers.{name}.events: nothing listens for them; set events.bind, e.g. "
                "127.0.0.1:8026"
            )
