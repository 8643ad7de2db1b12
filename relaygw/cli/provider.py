"""`relaygw provider`: look at providers with their limits and senders, hold and release them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

import click

from relaygw.cli.frame import CommandFailed, Group, Invocation, login_name, pass_invocation
from relaygw.cli.provider_presets import presets
from relaygw.cli.text import as_json, fitted, labelled, moment, terminal_width
from relaygw.mail.clock import clock_ms, rfc3339_or_none
from relaygw.mail.words import age, counted
from relaygw.operations.providers import (
    Usage,
    hold_provider,
    holds_of,
    provider_object,
    read_usages,
    release_provider,
    state_of,
)
from relaygw.settings.provider import Provider
from relaygw.store.holds import Hold
from relaygw.store.limits import SenderNote

_STATE_WIDTH = 14
_OTHER_COLUMNS = 40  # all but NAME and WHERE, with the spaces between them
NAME_WIDTHS = (14, 26)
"""A name is typed again, to release it for one: shown whole, if it can be."""
_PROVIDER_WIDTHS = (8, 26)
_SENDER_OTHER_COLUMNS = 27  # STATE, ACCEPTED and REFUSED, and the spaces between all
_INDENT = "  "
_NO_TEXT = "(the reply is not kept)"


@click.group(cls=Group)
def provider() -> None:
    """Look at providers, hold and release them."""


provider.add_command(presets)


@provider.command("hold")
@click.argument("name")
@click.option("--reason", default="", metavar="TEXT", help="Why; shown with the hold.")
@pass_invocation
def hold_one(invocation: Invocation, name: str, reason: str) -> None:
    """Send nothing by a provider until it is released; its mail waits."""
    loaded = invocation.load_running()
    _check_name(name, loaded.settings.providers, ())
    with invocation.open_store(loaded) as store:
        is_new = hold_provider(store, name, actor=login_name(), now_ms=clock_ms(), note=reason)
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


@provider.command("release")
@click.argument("name")
@pass_invocation
def release_holds(invocation: Invocation, name: str) -> None:
    """End all holds of a provider, its key and its sender domains; mail goes at once."""
    loaded = invocation.load_running()
    with invocation.open_store(loaded) as store:
        held = [name] if holds_of(store.holds.in_force(), name) else []
        _check_name(name, loaded.settings.providers, held)
        ended = release_provider(store, name, actor=login_name(), now_ms=clock_ms())
    if ended:
        invocation.wake_workers()
    if not ended:
        click.echo(f"{name}: nothing to release, it is not held")
    for one in ended:
        what = "" if one.scope == "provider" else f" ({one.scope} {one.key})"
        click.echo(f"{name}: released{what}; it was held: {one.reason}")


@provider.command("list")
@click.option("--json", "wants_json", is_flag=True, help="One object a line.")
@pass_invocation
def list_providers(invocation: Invocation, wants_json: bool) -> None:
    """List the providers with their limits, and why one is held or slowed."""
    loaded = invocation.load_running()
    providers = loaded.settings.providers
    with invocation.open_store(loaded) as store:
        holds = store.holds.in_force()
        usages = read_usages(store, providers)
    lines = _objects(usages, holds) if wants_json else _rows(usages, holds)
    for line in lines:
        click.echo(line)


def _objects(usages: Mapping[str, Usage], holds: list[Hold]) -> Iterator[str]:
    for name, usage in usages.items():
        yield as_json(provider_object(name, usage, holds_of(holds, name)))


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
        state = _short_state(holds_of(holds, name), usage)
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
    now_ms = clock_ms()
    used = [(name, one) for name, one in usages.items() if one.settings.daily_quota is not None]
    if used:
        yield ""
    for name, usage in used:
        yield _quota_line(name, usage)
    for name, usage in usages.items():
        if usage.is_slowed:
            yield ""
        yield from slowed_lines(name, usage, now_ms)
        for hold in holds_of(holds, name):
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


def _quota_line(name: str, usage: Usage) -> str:
    settings = usage.settings
    account = f" by account {settings.account}" if settings.account else ""
    used = f"{usage.quota_used} of {settings.daily_quota} {settings.quota_counts}"
    return labelled("quota", f"{name}: {used} used{account} in the last 24 hours")


def slowed_lines(name: str, usage: Usage, now_ms: int) -> Iterator[str]:
    """Yield why a provider gets less than its settings say, if it does."""
    taught = usage.account
    if usage.is_slower:
        what = " recipients" if usage.settings.rate_counts == "recipients" else ""
        when = moment(taught.ceiling_at_ms, now_ms)
        why = f"it asked for less at about {taught.ceiling_per_s:.3g}/s, {when}"
        yield labelled("slowed", f"{name} to {usage.rate_per_s:.3g}/s{what}: {why}")
    if usage.is_narrower:
        when = moment(taught.connections_at_ms, now_ms)
        why = f"it refused more than {taught.ceiling_connections}, {when}"
        yield labelled("slowed", f"{name} to {counted(usage.connections, 'connection')}: {why}")


def _check_name(name: str, configured: Iterable[str], remembered: Collection[str]) -> None:
    known = list(configured)
    if name not in known and name not in remembered:
        raise CommandFailed(
            f"{name}: no such provider; name one of: {', '.join(known) or 'none yet'}"
        )


@provider.command()
@click.argument("name", required=False)
@click.option("--json", "wants_json", is_flag=True, help="One object a line.")
@pass_invocation
def senders(invocation: Invocation, name: str | None, wants_json: bool) -> None:
    """List the sender addresses seen, those a provider refuses first; with NAME one provider's."""
    loaded = invocation.load_running()
    providers = loaded.settings.providers
    with invocation.open_store(loaded) as store:
        notes = store.limits.senders()
    if name is not None:
        _check_name(name, providers, {note.provider for note in notes})
    wanted = providers if name is None else (name,)
    chosen = [note for note in notes if note.provider in wanted]
    chosen.sort(key=_refused_first)
    for line in map(_sender_object, chosen) if wants_json else _sender_rows(chosen):
        click.echo(line)


def is_refused(note: SenderNote) -> bool:
    """True when the last that the provider said of the sender was no."""
    if note.refused_at_ms is None:
        return False
    return note.accepted_at_ms is None or note.refused_at_ms > note.accepted_at_ms


def _refused_first(note: SenderNote) -> tuple[bool, str, str]:
    return not is_refused(note), note.sender.rpartition("@")[2], note.sender


def _sender_object(note: SenderNote) -> str:
    return as_json(
        {
            "provider": note.provider,
            "sender": note.sender,
            "state": _state(note),
            "accepted_at": rfc3339_or_none(note.accepted_at_ms),
            "refused_at": rfc3339_or_none(note.refused_at_ms),
            "reply": note.reply,
        }
    )


def _state(note: SenderNote) -> str:
    return "refused" if is_refused(note) else "accepted"


def _sender_rows(notes: list[SenderNote]) -> Iterator[str]:
    if not notes:
        yield "no sender was seen yet"
        return
    width, now_ms = max(terminal_width(), 60), clock_ms()
    least, most = _PROVIDER_WIDTHS
    provider_width = min(max(least, *(len(note.provider) for note in notes)), most)
    sender_width = width - provider_width - _SENDER_OTHER_COLUMNS
    yield (
        f"{'SENDER':<{sender_width}} {'PROVIDER':<{provider_width}} "
        f"{'STATE':<8} {'ACCEPTED':>8} {'REFUSED':>7}"
    )
    for note in notes:
        yield (
            f"{fitted(note.sender or '<>', sender_width)} {fitted(note.provider, provider_width)} "
            f"{_state(note):<8} {_ago(note.accepted_at_ms, now_ms):>8} "
            f"{_ago(note.refused_at_ms, now_ms):>7}"
        )
        if is_refused(note):
            yield fitted(f"{_INDENT}{note.reply or _NO_TEXT}", width).rstrip()
    refused = sum(map(is_refused, notes))
    yield f"-- {counted(len(notes), 'line')}, {refused} refused"
    if refused:
        yield "what a refusal means and what to do: relaygw classify PROVIDER 'REPLY'"


def _ago(at_ms: int | None, now_ms: int) -> str:
    return "-" if at_ms is None else age(now_ms - at_ms)
