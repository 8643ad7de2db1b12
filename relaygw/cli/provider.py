"""`relaygw provider`: look at providers with their limits and senders, hold and release them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import click

from relaygw.cli import frame
from relaygw.cli.frame import CommandFailed, Group, Invocation, pass_invocation
from relaygw.cli.text import aligned, as_json, fitted, labelled, moment, print_lines, terminal_width
from relaygw.cli.verbs import command_of
from relaygw.mail.clock import clock_ms, rfc3339_or_none
from relaygw.mail.outcome import Scope
from relaygw.mail.words import age, counted, fields
from relaygw.operations.provider_holds import HOLD, RELEASE
from relaygw.operations.providers import (
    Usage,
    busy_words,
    holds_of,
    provider_object,
    put_off_words,
    rate_words,
    read_usages,
    state_of,
    turn_words,
)
from relaygw.settings import presets as known
from relaygw.settings.presets import Choice, Preset
from relaygw.store.holds import PAUSED, PROBE_LONGEST_S, UNREACHABLE, Hold
from relaygw.store.limits import SenderNote

_STATE_WIDTH = 14
_OTHER_COLUMNS = 40  # all but NAME and WHERE, with the spaces between them
NAME_WIDTHS = (14, 26)
"""A name is typed again, to release it for one: shown whole, if it can be."""
_PROVIDER_WIDTHS = (8, 26)
_SENDER_OTHER_COLUMNS = 27  # STATE, ACCEPTED and REFUSED, and the spaces between all
_DOUBT = "queue explain tells when each is tried again, or that it is held"
UNCONFIRMED = "unconfirmed"
"""The source, in presets.yaml, of what is known without a page of the service."""


@click.group(cls=Group)
def provider() -> None:
    """Show, hold and release providers."""


for _verb in (HOLD, RELEASE):
    provider.add_command(command_of(_verb))


@provider.command("list")
@frame.JSON_LINES
@pass_invocation
def list_providers(invocation: Invocation, wants_json: bool) -> None:
    """List the providers with their limits, and why they are held or slowed."""
    loaded = invocation.load_running()
    with invocation.open_store(loaded) as store:
        holds = store.holds.in_force()
        usages = read_usages(store, loaded.settings, holds, store.queue.counts())
    objects = (
        provider_object(name, usage, holds_of(holds, name)) for name, usage in usages.items()
    )
    print_lines(map(as_json, objects) if wants_json else _rows(usages, holds))


def _rows(usages: Mapping[str, Usage], holds: list[Hold]) -> Iterator[str]:
    if not usages:
        yield "no providers; see: relaygw provider presets"
        return
    least, most = NAME_WIDTHS
    name_width = min(max(least, *map(len, usages)), most)
    where_width = max(terminal_width() - _OTHER_COLUMNS - name_width, 10)
    widths = (name_width, where_width, -4, -8, -8, _STATE_WIDTH + 1)
    yield aligned(widths, "NAME", "WHERE", "CONN", "RATE", "QUOTA", " STATE")
    for name, usage in usages.items():
        settings, mine = usage.settings, holds_of(holds, name)
        where, state = f"{settings.host}:{settings.port}", state_of(mine, usage)
        state = f"held: {mine[0].reason}" if state == "held" else state
        limits = settings.model_dump(mode="json", include={"rate", "daily_quota"})
        rate, quota = (limits[key] or "-" for key in ("rate", "daily_quota"))
        yield aligned(widths, name, where, settings.max_connections, rate, quota, f" {state}")
    yield from _notes(usages, holds)


def _notes(usages: Mapping[str, Usage], holds: list[Hold]) -> Iterator[str]:
    now_ms = clock_ms()
    used = [(name, use) for name, use in usages.items() if use.settings.daily_quota is not None]
    if used:
        yield ""
    for name, usage in used:
        settings = usage.settings
        account = f" by account {settings.account}" if settings.account else ""
        share = f"{usage.quota_used} of {settings.daily_quota} {settings.quota_counts}"
        yield labelled("quota", f"{name}: {share} used{account} in the last 24 hours")
    for name, usage in usages.items():
        lines = list(usage_lines(name, usage, now_ms))
        yield from ("", *lines) if lines else ()
        for hold in holds_of(holds, name):
            yield ""
            yield hold_line(hold, now_ms)
            if hold.remedy:
                yield labelled("remedy", hold.remedy)


def hold_line(hold: Hold, now_ms: int, remedy: str = "") -> str:
    """Return a hold in a line, with its end."""
    told = hold_words(hold, now_ms)
    return labelled(hold_word(hold), "; ".join(filter(None, (told, remedy))))


def hold_word(hold: Hold) -> str:
    """Return the word for the state that a hold puts its provider in."""
    return "paused" if hold.scope == PAUSED else "held"


def hold_words(hold: Hold, now_ms: int) -> str:
    """Return whom a hold is on, since when, why and until when."""
    is_plain = hold.scope in (Scope.PROVIDER, PAUSED)
    what = hold.key if is_plain else f"{hold.scope} {hold.key}"
    probe = "" if hold.probe_at_ms is None else _probe_words(hold, now_ms)
    told = f"{what} since {moment(hold.since_ms, now_ms)}: {hold.reason}"
    return "; ".join(filter(None, (told, probe)))


def _probe_words(hold: Hold, now_ms: int) -> str:
    """Return when it is probed; a time that has passed is the last that the queue knows of."""
    at_ms = hold.probe_at_ms or 0
    when = moment(at_ms, now_ms)
    if at_ms > now_ms:
        return f"next probe at {when}"
    if hold.scope in (UNREACHABLE, Scope.CREDENTIAL):  # by a connection
        if now_ms - at_ms < PROBE_LONGEST_S * 1000:
            return f"a probe is under way since {when}, for {PROBE_LONGEST_S:g} s at most"
        return f"the last probe was due at {when}"
    return f"the next message is a probe, since {when}"


def usage_lines(name: str, usage: Usage, now_ms: int) -> Iterator[str]:
    """Yield why a provider gets less than its settings say, or mail waits for it, if that is so."""
    taught = usage.account
    if usage.put_off is not None:
        yield labelled("deferring", put_off_words(name, usage.put_off))
    if usage.is_behind:
        yield labelled("waiting", turn_words(name, usage))
    if usage.is_busy:
        yield labelled("waiting", busy_words(name, usage))
    if usage.doubts:
        many = counted(usage.doubts, "delivery", "deliveries")
        yield labelled("in doubt", f"{many} that {name} may have taken; {_DOUBT}")
    if usage.is_slower:
        what = " recipients" if usage.settings.rate_counts == "recipients" else ""
        when = moment(taught.ceiling_at_ms, now_ms)
        why = f"it asked to slow down at about {rate_words(taught.ceiling_per_s)}, {when}"
        yield labelled("slowed", f"{name} to {rate_words(usage.rate_per_s)}{what}: {why}")
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
@frame.JSON_LINES
@pass_invocation
def senders(invocation: Invocation, name: str | None, wants_json: bool) -> None:
    """List the sender addresses seen, refused ones first; with NAME, those of one provider."""
    loaded = invocation.load_running()
    providers = loaded.settings.providers
    with invocation.open_store(loaded) as store:
        notes = store.limits.senders()
    if name is not None:
        _check_name(name, providers, {note.provider for note in notes})
    wanted = providers if name is None else (name,)
    chosen = [note for note in notes if note.provider in wanted]
    chosen.sort(
        key=lambda note: (not is_refused(note), note.sender.rpartition("@")[2], note.sender)
    )
    print_lines(map(_sender_object, chosen) if wants_json else _sender_rows(chosen))


def is_refused(note: SenderNote) -> bool:
    """True when the last that the provider said of the sender was no."""
    if note.refused_at_ms is None:
        return False
    return note.accepted_at_ms is None or note.refused_at_ms > note.accepted_at_ms


def _sender_object(note: SenderNote) -> str:
    return as_json(
        {
            **fields(note, "provider", "sender"),
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
    widths = (sender_width, provider_width, 8, -8, -7)
    yield aligned(widths, "SENDER", "PROVIDER", "STATE", "ACCEPTED", "REFUSED")
    for note in notes:
        accepted, refused_at = _ago(note.accepted_at_ms, now_ms), _ago(note.refused_at_ms, now_ms)
        sender = note.sender or "<>"
        yield aligned(widths, sender, note.provider, _state(note), accepted, refused_at)
        if is_refused(note):
            yield fitted(f"  {note.reply or '(the reply is not kept)'}", width).rstrip()
    refused = sum(map(is_refused, notes))
    yield f"-- {counted(len(notes), 'line')}, {refused} refused"
    if refused:
        yield "for the meaning of a refusal, run: relaygw classify PROVIDER 'REPLY'"


def _ago(at_ms: int | None, now_ms: int) -> str:
    return "-" if at_ms is None else age(now_ms - at_ms)


# --- presets -------------------------------------------------------------------------------


@provider.command()
@click.argument("name", required=False)
@frame.JSON_LINES
def presets(name: str | None, wants_json: bool) -> None:
    """List the known mail services, or show all about one."""
    chosen = known.presets()
    if name is not None:
        name = name.lower()
        if name not in chosen:
            raise CommandFailed(f"{name}: no such preset; name one of: {', '.join(chosen)}")
        chosen = {name: chosen[name]}
    if wants_json:
        objects = (
            {"name": key, **preset.model_dump(mode="json")} for key, preset in chosen.items()
        )
        print_lines(map(as_json, objects))
    else:
        print_lines(_preset_rows(chosen) if name is None else _preset_story(name, chosen[name]))


def _preset_rows(chosen: Mapping[str, Preset]) -> Iterator[str]:
    yield f"{'PRESET':<13} {'HOST':<34} {'PORT':>4}  YOU WRITE"
    for name, preset in chosen.items():
        filled = preset.keys_for(None, None)
        host = str(filled["host"]).replace("{region}", "REGION")
        wanted = " ".join(key for key in preset.asks if "." not in key and key not in filled)
        yield f"{name:<13} {fitted(host, 34)} {filled['port']:>4}  {wanted}"
    yield ""
    yield "for all about one, its regions and variants, run: relaygw provider presets NAME"


def _preset_story(name: str, preset: Preset) -> Iterator[str]:
    yield labelled("preset", f"{name}: {preset.service}")
    kinds = {"STARTTLS": preset.starttls_ports, "implicit TLS": preset.implicit_ports}
    ports = [f"{', '.join(map(str, of))} with {kind}" for kind, of in kinds.items() if of]
    yield labelled("ports", "; ".join(ports))
    yield labelled("fills in", _keys(preset.keys_for(None, None)))
    if preset.is_token_twice:
        yield labelled("", "username: the same as password")
    if preset.with_oauth:
        yield labelled("with oauth", _keys(preset.with_oauth))
    for key, what in preset.asks.items():
        yield labelled("you write", f"{key}: {what}")
    if preset.may_lack_auth:
        yield labelled("", "or neither username nor password")
    if preset.region_pattern:
        yield labelled("region", "any region of the service")
    yield from _choices("region", preset.regions, preset.default_region)
    yield from _choices("variant", preset.variants, preset.default_variant)
    for note in preset.notes:
        yield labelled("note", str(note))
    for where, facts in preset.sources.items():
        where = "no documentation of the service" if where == UNCONFIRMED else where
        yield labelled("source", f"{', '.join(facts)}: {where}")


def _choices(kind: str, choices: Mapping[str, Choice], default: str | None) -> Iterator[str]:
    for name, choice in choices.items():
        words = [
            *(["the default"] if name == default else []),
            *([choice.about] if choice.about else []),
            *([_keys(choice.keys)] if choice.keys else []),
        ]
        yield labelled(kind, f"{name}: {'; '.join(words)}" if words else name)


def _keys(keys: Mapping[str, Any]) -> str:
    text = ", ".join(f"{key}: {_value(value)}" for key, value in keys.items())
    return text.replace("{region}", "REGION")


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + _keys(value) + "}"
    return value if isinstance(value, str) else json.dumps(value)
