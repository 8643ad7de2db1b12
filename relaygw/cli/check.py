"""`relaygw check`: is the configuration right, what would it do with mail, are providers there.

An explanation follows the same steps as acceptance. With --online providers are looked at side by
side, and shown one after the other: each finding as soon as it and those before it are known.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TypeVar

import click

from relaygw.cli.check_findings import (
    AskedMail,
    act_as_service,
    change,
    closed_places,
    events_doubts,
    events_problems,
    events_words,
    field_lines,
    file_problems,
    hidden_files,
    idle_providers,
    idle_values,
    lonely_listeners,
    loop_doubts,
    loop_problems,
    program_problems,
    queue_problems,
    server_findings,
    short_tokens,
    suppression_lines,
    take_variables_of_service,
    token_doubts,
    unreadable_secrets,
    unused_allow,
    ways_of,
    web_doubts,
)
from relaygw.cli.frame import Command, CommandFailed, Invocation, address_of, pass_invocation
from relaygw.cli.provider import hold_word, hold_words
from relaygw.cli.running_gateway import note_refusal, other_mode
from relaygw.cli.setup_host import (
    is_bystander,
    service_problems,
    service_warnings,
    settings_of_service,
    socket_problems,
)
from relaygw.cli.stderr import warn
from relaygw.cli.text import as_json, labelled, print_lines
from relaygw.errors import RelaygwError, SchemaMismatch, SettingsError, StoreUnavailable
from relaygw.mail.clock import clock_ms
from relaygw.mail.words import fields, printable
from relaygw.operations.providers import holds_of, put_off_words, read_usages
from relaygw.policy.endings import ending_logins
from relaygw.policy.recipients import AddressPatterns
from relaygw.policy.router import Way
from relaygw.policy.untended import gone_words, known_routes
from relaygw.settings.alerts import channel_name
from relaygw.settings.listeners import Listener
from relaygw.settings.load import LoadedSettings
from relaygw.settings.loops import looping_binds
from relaygw.settings.model import Log, Settings
from relaygw.settings.provider import Provider
from relaygw.settings.routes import Route
from relaygw.store.store import Store
from relaygw.upstream.diagnosis import Finding, Result, Step, diagnose

T = TypeVar("T")
_PATIENCE_S = 4.0
_TLS_WORDS = {
    "required": "STARTTLS, verified",
    "implicit": "implicit TLS, verified",
    "encrypt": "STARTTLS, not verified",
    "opportunistic": "STARTTLS if offered, not verified",
    "none": "no TLS",
}
_MODES = {
    "production": "mail is sent",
    "staging": "mail is sent to recipients.allow only ({} entries)",
    "sandbox": "all mail is captured, none is sent",
}


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
@click.option("--sender", metavar="A", help="Sender to explain; <> is the null sender.")
@click.option("--recipient", metavar="B", help="Recipient to explain.")
@click.option(
    "--header", "headers", metavar="LINE", multiple=True, callback=_header,
    help="A header field of that mail: 'NAME: VALUE'; repeatable.",
)  # fmt: skip
@click.option("--listener", metavar="BIND", help="The listener that accepts that mail.")
@click.option("--user", metavar="NAME", help="The user who sends that mail.")
@click.option("--online", is_flag=True, help="Check the providers as well; no mail is sent.")
@click.option(
    "--json", "wants_json", is_flag=True, help="With --online: JSON, one object per line."
)
@click.option(
    "--before-reload", "reloading", metavar="PID", type=int,
    help="Of relaygw.service: what is refused is an alert of the gateway with this process id.",
)  # fmt: skip
@pass_invocation
def check(
    invocation: Invocation,
    sender: str | None,
    recipient: str | None,
    headers: dict[str, str],
    listener: str | None,
    user: str | None,
    online: bool,
    wants_json: bool,
    reloading: int | None,
) -> int:
    """Check the configuration; with --sender and --recipient explain what happens to mail.

    Exit code 69: something failed --online; 78: a provider is a listener of this gateway,
    a package is not installed, events.bind is public and a secret cannot work, or PostgreSQL
    cannot have the queue as it is set up.
    """
    if wants_json and not online:
        raise click.UsageError("--json needs --online")
    _refuse_half_a_mail(sender, recipient, headers, listener or user, online=online)
    if reloading is not None:
        return _check_before_reload(invocation, reloading)
    loaded, doubts = _read(invocation)
    if sender is not None:
        sender = "" if sender == "<>" else address_of(sender, "--sender")
    if recipient is not None:
        recipient = address_of(recipient, "--recipient")
    mail = AskedMail(sender, recipient, headers, listener, user)
    _refuse_unknown(
        "--listener", listener, [str(entry.bind) for entry in loaded.settings.listeners]
    )
    _refuse_unknown("--user", user, [entry.name for entry in loaded.settings.users])
    return check_settings(invocation, loaded, mail, doubts, online=online, wants_json=wants_json)


def check_settings(
    invocation: Invocation,
    loaded: LoadedSettings,
    mail: AskedMail,
    doubts: Iterable[str],
    *,
    online: bool,
    wants_json: bool = False,
    changes_socket: bool = False,
    tell: Callable[[str], object] = str,
) -> int:
    """Check settings as the service's user, and print what is found; return the exit code.

    `doubts` are printed with those that are found.
    `changes_socket`: the caller makes relaygw.socket follow `listeners` afterwards. `tell` gets
    each problem that the settings are refused for.
    """
    problems, shortages = server_findings(loaded) if mail.recipient is None else ([], [])
    asks_service = not is_bystander(loaded)
    theirs = settings_of_service(loaded)
    closed = [*closed_places(theirs)] if asks_service else []
    problems += (text for is_vital, text in closed if is_vital)
    hidden = hidden_files(theirs)
    problems += file_problems(loaded, hidden) if asks_service else ()
    problems += chain(service_problems(loaded), hidden.values())
    problems += () if changes_socket else socket_problems(theirs)
    problems += events_problems(loaded.settings) if asks_service else ()
    for look in (program_problems, queue_problems, loop_problems):
        problems += look(loaded.settings)
    if mail.recipient is not None:
        problems.clear()  # what happens to mail is explained all the same
    if not wants_json:
        doubts = [*doubts, *shortages, *(text for is_vital, text in closed if not is_vital)]
        doubts += other_mode(loaded)
        _tell(invocation, loaded, mail, doubts, is_ok=not problems and not online)
    for problem in problems:
        warn(f"error: {problem}")
        tell(problem)
    problems_code = os.EX_CONFIG if problems else os.EX_OK
    if not online:
        return problems_code
    held = _read_queue(invocation, loaded, lambda store: _of_gateway(store, loaded.settings))
    online_code = _check_online(loaded.settings, mail, [*hidden], held, wants_json=wants_json)
    return problems_code or online_code


def _read(invocation: Invocation) -> tuple[LoadedSettings, Sequence[str]]:
    """Read the settings of the service, act as its user from here on; doubts about variables."""
    loaded = invocation.read()
    doubts = take_variables_of_service(loaded)  # as root, where it is
    act_as_service(loaded)
    return loaded, doubts


def _check_before_reload(invocation: Invocation, pid: int) -> int:
    """Check as relaygw.service does before it signals its gateway, which `pid` is.

    What is refused here never gets to that gateway: it is noted for its alerts.
    """
    problems: list[str] = []
    try:
        loaded, doubts = _read(invocation)
        return check_settings(
            invocation, loaded, AskedMail(), doubts, online=False, tell=problems.append
        )
    except RelaygwError as error:
        problems += str(error).splitlines()
        raise
    finally:
        if problems:
            note_refusal(pid, problems[0])


def _refuse_half_a_mail(
    sender: str | None,
    recipient: str | None,
    headers: dict[str, str],
    client: str | None,
    *,
    online: bool,
) -> None:
    if (sender is None) != (recipient is None) and not (online and sender is not None):
        raise click.UsageError("--sender and --recipient are used together; give both")
    if headers and recipient is None:
        raise click.UsageError("--header needs --sender and --recipient")
    if client and recipient is None:
        raise click.UsageError("--listener and --user need --sender and --recipient")


def _refuse_unknown(option: str, name: str | None, known: list[str]) -> None:
    if name is not None and name not in known:
        names = ", ".join(known) or "none yet"
        problem = f"{option} {name!r} is not in the configuration; write one of: {names}"
        raise CommandFailed(problem)


def _tell(
    invocation: Invocation,
    loaded: LoadedSettings,
    mail: AskedMail,
    doubts: Iterable[str],
    *,
    is_ok: bool,
) -> None:
    is_whole = mail.sender is not None and mail.recipient is not None
    print_lines(_explain(loaded.settings, mail) if is_whole else _summary(loaded, is_ok=is_ok))
    if is_whole:
        print_lines(suppression_lines(invocation, loaded, mail))
    if mail.recipient is None:
        gone = _routes_gone(invocation, loaded)
        for text in chain(
            loaded.doubts,
            _warnings(loaded.settings),
            () if is_bystander(loaded) else _warnings_of_reader(loaded.settings),
            doubts,
            service_warnings(loaded),
            gone,
        ):
            warn(f"warning: {text}")


def _of_gateway(store: Store, settings: Settings) -> Iterator[tuple[str, Finding]]:
    """Yield why the gateway sends nothing by a provider, or has no mail taken by it."""
    holds = store.holds.in_force()
    for hold in holds:
        why = f"the gateway has {hold_word(hold)} {hold_words(hold, clock_ms())}"
        yield hold.provider, _warning(why, hold.remedy)
    for name, usage in read_usages(store, settings, holds, ()).items():
        if usage.put_off is not None and not holds_of(holds, name):
            yield name, _warning(put_off_words(name, usage.put_off))


def _warning(detail: str, remedy: str = "") -> Finding:
    return Finding(step=Step.GATEWAY, result=Result.WARNING, detail=detail, remedy=remedy)


def _check_online(
    settings: Settings,
    mail: AskedMail,
    hidden: Iterable[str],
    held: Iterable[tuple[str, Finding]],
    *,
    wants_json: bool,
) -> int:
    """Ask the providers whose secrets are not `hidden` from the service.

    `held` is what the gateway says of them, shown before what they answer.
    """
    if mail.sender is None:
        senders = {name: _known_senders(settings, name) for name in settings.providers}
    else:
        sender, ways = ways_of(settings, mail)
        used = chain.from_iterable(way.providers for way in ways.values())
        senders = dict.fromkeys(settings.providers if mail.recipient is None else used, (sender,))
    if not senders:
        warn("no provider is used for this; nothing to check online")
    for name in {key.split(".")[1] for key in hidden if key.startswith("providers.")}:
        senders.pop(name, None)
    try:
        is_fine = asyncio.run(_ask_all(settings, senders, held, wants_json=wants_json))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    return os.EX_OK if is_fine else os.EX_UNAVAILABLE


def _known_senders(settings: Settings, name: str) -> tuple[str, ...]:
    patterns = [
        *settings.providers[name].senders,
        *(entry for route in settings.routes if name in route.providers for entry in route.sender),
    ]
    addresses = dict.fromkeys(pattern for pattern in patterns if not pattern.startswith(("@", ".")))
    return tuple(address for address in addresses if _may_send(settings.providers[name], address))


def _may_send(provider: Provider, sender: str) -> bool:
    return not provider.senders or AddressPatterns(provider.senders).matches(sender)


async def _ask_all(
    settings: Settings,
    senders: Mapping[str, tuple[str, ...]],
    held: Iterable[tuple[str, Finding]],
    *,
    wants_json: bool,
) -> bool:
    """Ask the providers and print what comes in, one after the other; True if nothing failed."""
    is_fine = True
    found: dict[str, asyncio.Queue[Finding | None]] = {name: asyncio.Queue() for name in senders}
    for name, finding in held:
        if name in found:
            found[name].put_nowait(finding)
    async with asyncio.TaskGroup() as group:
        tasks = {
            name: group.create_task(_ask(settings, name, addresses, found[name]))
            for name, addresses in senders.items()
        }
        for name, coming in found.items():
            while (shown := await _next(coming, tasks)) is not None:
                is_fine = is_fine and shown.result is not Result.FAILED
                click.echo(_finding_json(name, shown) if wants_json else finding_line(name, shown))
    return is_fine


async def _next(
    coming: asyncio.Queue[Finding | None], tasks: Mapping[str, asyncio.Task[None]]
) -> Finding | None:
    """Return the next finding, None after the last; name on stderr who makes it wait for long."""
    while True:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await coming.get()
        except TimeoutError:
            waiting = [name for name, task in tasks.items() if not task.done()]
            warn(f"waiting for {', '.join(waiting)}")


def _finding_json(name: str, finding: Finding) -> str:
    shown = fields(finding, "step", "result", "detail", "remedy")
    shown |= {"result": finding.result.lower(), "remedy": finding.remedy or None}
    return as_json({"provider": name, **shown})


def finding_line(name: str, finding: Finding) -> str:
    """Return the findings about a provider, for people."""
    remedy = f"; {finding.remedy}" if finding.remedy else ""
    head = f"provider {name}: {finding.step.value:<8} {finding.result.value:<7}"
    return printable(f"{head} {finding.detail}{remedy}")


async def _ask(
    settings: Settings,
    name: str,
    addresses: tuple[str, ...],
    found: asyncio.Queue[Finding | None],
) -> None:
    provider = settings.providers[name]
    usable = [address for address in addresses if _may_send(provider, address)]
    own = looping_binds(settings, name)
    asked = diagnose(provider, ehlo_name=settings.hostname, senders=usable, own=own)
    async for finding in asked:
        found.put_nowait(finding)
    for sender in (address for address in addresses if address not in usable):
        shown = sender or "<>"
        detail = f"{shown} is not one of the provider's senders; this provider is not used for it"
        finding = Finding(step=Step.SENDER, result=Result.WARNING, detail=detail)
        found.put_nowait(finding)
    found.put_nowait(None)


# --- what a configuration says, and what it does with mail -----------------------------------


def _summary(loaded: LoadedSettings, *, is_ok: bool) -> Iterator[str]:
    """Yield what the configuration says; `is_ok`: nothing is wrong, nor left to be looked at."""
    from relaygw.alerting.open_channels import target_words

    settings = loaded.settings
    yield labelled(
        "ok" if is_ok else "files", ", ".join(map(str, loaded.files)) or "no file: the sandbox"
    )
    mode = _MODES[settings.mode.value].format(len(settings.recipients.allow))
    yield labelled("mode", f"{settings.mode.value}: {mode}")
    yield labelled("hostname", settings.hostname)
    yield labelled("queue", settings.queue.url)
    for listener in settings.listeners:
        words = _listener_words(listener, has_users=bool(settings.users))
        yield labelled("listener", f"{listener.bind} for {words}")
    base_path = settings.web.base_path.rstrip("/")
    yield labelled("web", f"http://{settings.web.bind}{base_path} for {_web_words(settings)}")
    if (events := events_words(settings)) is not None:
        yield labelled("events", events)
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


def _routes_gone(invocation: Invocation, loaded: LoadedSettings) -> Iterator[str]:
    """Yield a warning for each route that is gone."""
    for route in _read_queue(invocation, loaded, lambda store: store.leases.routes_waiting()):
        if route not in known_routes(loaded.settings):
            yield (
                f"mail waits on {gone_words(route)}; once all workers run this one, it takes the "
                "current routes, except mail that a provider may have taken already"
            )


def _read_queue(
    invocation: Invocation, loaded: LoadedSettings, read: Callable[[Store], Iterable[T]]
) -> list[T]:
    """Read from the queue; return nothing of one out of reach."""
    try:
        with invocation.open_store(loaded) as store:
            return [*read(store)]
    except (StoreUnavailable, SchemaMismatch, SettingsError):
        return []


def _warnings(settings: Settings) -> Iterator[str]:
    from relaygw.alerting.open_channels import problem_of

    for number, alert in enumerate(settings.alerts):
        problem = problem_of(alert, settings)
        if problem is not None:
            yield f"alerts.{number}.{alert.kind}: {problem}"
    for name, provider in settings.providers.items():
        yield from (f"providers.{name}.tls: {problem}" for problem in provider.tls_doubts())
    for ending in ending_logins(settings):
        yield f"{ending.words(clock_ms())}; {ending.remedy}"
    for look in (
        loop_doubts,
        unused_allow,
        idle_providers,
        idle_values,
        lonely_listeners,
        short_tokens,
        web_doubts,
    ):
        yield from look(settings)


def _warnings_of_reader(settings: Settings) -> Iterator[str]:
    """Yield warnings by what this user may read."""
    from relaygw.settings.certificates import doubtful_certificates

    for look in (unreadable_secrets, token_doubts, events_doubts, doubtful_certificates):
        yield from look(settings)
    problem = _log_problem(settings.log)
    if problem is not None:
        yield f"log.target: {settings.log.target}: {problem}"


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
        return f"{directory} is not a directory; name another"
    return f"{directory} does not exist; create it, writable by relaygw's user"


def _provider_words(provider: Provider) -> str:
    auth = "AUTH" if provider.has_credentials else "no AUTH"
    return f"{provider.host}:{provider.port}, {_TLS_WORDS[provider.tls.value]}, {auth}"


def _listener_words(listener: Listener, *, has_users: bool) -> str:
    networks = ", ".join(map(str, listener.allow)) or "nobody"
    who = {"required": "users only", "off": networks}.get(
        listener.auth, f"{networks} and users" if has_users and not listener.is_clear else networks
    )
    tls = {"starttls": ", STARTTLS", "implicit": ", implicit TLS"}.get(listener.tls.mode, "")
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


def _explain(settings: Settings, mail: AskedMail) -> Iterator[str]:
    sender, ways = ways_of(settings, mail)
    yield labelled("sender", change(mail.sender or "<>", sender or "<>"))
    for recipient, way in ways.items():
        yield labelled("recipient", change(mail.recipient or "", recipient))
        yield from _way_lines(settings, mail, way)
    if settings.archive_to is not None:
        yield labelled("archive", f"{settings.archive_to} is a recipient as well (archive_to)")


def _way_lines(settings: Settings, mail: AskedMail, way: Way) -> Iterator[str]:
    yield labelled("decision", way.decision)
    yield labelled("route", way.route)
    for name in way.providers:
        yield labelled("provider", f"{name}: {_provider_words(settings.providers[name])}")
    if way.route_name is not None:
        yield from field_lines(settings, mail)
    if way.unseen_headers:
        names = ", ".join(way.unseen_headers)
        yield labelled("note", f"an earlier route has a condition on {names}; see --header")
