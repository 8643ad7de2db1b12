"""`relaygw provider presets`: the mail services that are known, and what is known of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

from relaygw.cli.frame import Command, CommandFailed
from relaygw.cli.text import as_json, fitted, labelled
from relaygw.settings import presets as known
from relaygw.settings.presets import Choice, Preset

UNCONFIRMED = "unconfirmed"
"""The source, in presets.yaml, of what is known without a page of the service."""


@click.command(cls=Command)
@click.argument("name", required=False)
@click.option("--json", "wants_json", is_flag=True, help="One object a line.")
def presets(name: str | None, wants_json: bool) -> None:
    """List the mail services that are known, or tell all about one."""
    chosen = known.presets()
    if name is not None:
        if name not in chosen:
            raise CommandFailed(f"{name}: no such preset; name one of: {', '.join(chosen)}")
        chosen = {name: chosen[name]}
    lines: Iterator[str]
    if wants_json:
        lines = (
            as_json({"name": key, **one.model_dump(mode="json")}) for key, one in chosen.items()
        )
    elif name is not None:
        lines = _story(name, chosen[name])
    else:
        lines = _rows(chosen)
    for line in lines:
        click.echo(line)


def _rows(chosen: Mapping[str, Preset]) -> Iterator[str]:
    yield f"{'PRESET':<13} {'HOST':<34} {'PORT':>4}  YOU WRITE"
    for name, one in chosen.items():
        wanted = " ".join(key for key in one.asks if "." not in key and not _is_filled(one, key))
        yield f"{name:<13} {fitted(_host(one), 34)} {one.starttls_ports[0]:>4}  {wanted}"
    yield ""
    yield "all about one, its regions and variants: relaygw provider presets NAME"


def _is_filled(preset: Preset, key: str) -> bool:
    return key in preset.keys_for(None, None)


def _host(preset: Preset) -> str:
    return str(preset.keys_for(None, None)["host"]).replace("{region}", "REGION")


def _story(name: str, one: Preset) -> Iterator[str]:
    yield labelled("preset", f"{name}: {one.service}")
    yield labelled("ports", _ports(one))
    yield labelled("fills in", _keys(one.keys_for(None, None)))
    if one.is_token_twice:
        yield labelled("", "username: the same as password")
    if one.with_oauth:
        yield labelled("with oauth", _keys(one.with_oauth))
    for key, what in one.asks.items():
        yield labelled("you write", f"{key}: {what}")
    if one.may_lack_auth:
        yield labelled("", "or neither username nor password")
    if one.region_pattern:
        yield labelled("region", "any region of the service")
    yield from _choices("region", one.regions, one.default_region)
    yield from _choices("variant", one.variants, one.default_variant)
    for note in one.notes:
        yield labelled("note", note)
    for where, facts in one.sources.items():
        where = "no page of the service" if where == UNCONFIRMED else where
        yield labelled("source", f"{', '.join(facts)}: {where}")


def _ports(one: Preset) -> str:
    words = ", ".join(map(str, one.starttls_ports)) + " with STARTTLS"
    if one.implicit_ports:
        words += "; " + ", ".join(map(str, one.implicit_ports)) + " with TLS at once"
    return words


def _choices(kind: str, choices: Mapping[str, Choice], default: str | None) -> Iterator[str]:
    for name, choice in choices.items():
        words = [
            *(["the default"] if name == default else []),
            *([choice.about] if choice.about else []),
            *([_keys(choice.keys)] if choice.keys else []),
        ]
        yield labelled(kind, f"{name}: {'; '.join(words)}" if words else name)


def _keys(keys: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key}: " + ("{" + _keys(value) + "}" if isinstance(value, dict) else _value(value))
        for key, value in keys.items()
    ).replace("{region}", "REGION")


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
