"""What is known of mail services: presets.yaml, and how presets are used.

A preset is laid under the providers that name it: every key of the user's own stays, and what
neither has is a problem that says what to write. The file beside this one explains its keys.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from relaygw.settings.idempotency import Idempotency, KeyHeader
from relaygw.settings.secrets import SecretRef
from relaygw.settings.section import Port, Section
from relaygw.settings.tree import FilledValues, Keys, read_own

_PRESETS = Path(__file__).with_name("presets.yaml")


class Choice(Section):
    """A region or a variant of a service."""

    about: str = ""
    keys: dict[str, Any] = {}


class MarkField(Section):
    """Where the mark of a mail goes, so that events come back with it; see presets.yaml."""

    header: str
    form: Literal["text", "json", "tags", "pairs"] = "text"
    inside: str | None = None  # json: the key of the object that it is a key of
    needs_header: str | None = None  # without this field the service reports nothing
    max_bytes: int | None = None  # of its value: a longer one is refused, or not read
    most_of: tuple[str, int] | None = None  # at most so many fields whose names begin so


class Ending(Section):
    """When a service ends a way of logging in, in words behind the date, and what to do."""

    at: date
    text: str
    remedy: str


class Note(Section):
    """What else to know of a service, and the month in which it was last looked up."""

    text: str
    checked: str = Field(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$")

    def __str__(self) -> str:
        """Return it with the month, for people."""
        return f"{self.text} ({self.checked})"


class Preset(Section):
    """One mail service; presets.yaml explains the fields."""

    service: str
    starttls_ports: tuple[Port, ...]
    implicit_ports: tuple[Port, ...] = ()
    keys: dict[str, Any] = {}
    regions: dict[str, Choice] = {}
    region_pattern: str | None = None
    default_region: str | None = None
    variants: dict[str, Choice] = {}
    default_variant: str | None = None
    is_token_twice: bool = False
    may_lack_auth: bool = False
    asks: dict[str, str] = {}
    with_oauth: dict[str, Any] = {}
    password_ends: Ending | None = None
    idempotency: Idempotency | None = None
    notes: tuple[Note, ...] = ()
    events: dict[str, str] = {}
    mark: MarkField | None = None
    sources: dict[str, tuple[str, ...]] = {}

    @property
    def needs_region(self) -> bool:
        """True when the file must name a region."""
        return self.region_pattern is not None and self.default_region is None

    def has_region(self, region: str) -> bool:
        """Return whether the service has such a region."""
        pattern = self.region_pattern
        return region in self.regions or bool(pattern and re.fullmatch(pattern, region))

    def keys_for(self, region: str | None, variant: str | None) -> dict[str, Any]:
        """Return the keys to fill in; without a region, one that is needed stays as `{region}`."""
        region = region or self.default_region
        variant = variant or self.default_variant
        port = (*self.starttls_ports, *self.implicit_ports)[0]
        keys = {"host": "", "port": port, **self.keys}
        if region in self.regions:
            keys |= self.regions[region].keys
        if variant in self.variants:
            keys |= self.variants[variant].keys
        if region is not None:
            keys["host"] = keys["host"].replace("{region}", region)
        return keys


@cache
def presets() -> Mapping[str, Preset]:
    """Return all presets by name."""
    values = read_own(_PRESETS).values
    return {name: Preset.model_validate(entry) for name, entry in values.items()}


def key_header_of(preset: str | None) -> KeyHeader | None:
    """Return where the service of a preset reads an idempotency key; None where it reads none."""
    known = presets().get(preset) if preset is not None else None
    return known.idempotency.own if known and known.idempotency else None


def fill_presets(filling: FilledValues) -> None:
    """Fill in what the providers' presets say, and note what is missing."""
    providers = filling.values.get("providers")
    if not isinstance(providers, dict):
        return
    filled = dict(providers)
    for name, written in providers.items():
        if isinstance(written, dict):
            filled[name] = _fill(filling, written, ("providers", name))
    filling.values["providers"] = filled


def _fill(filling: FilledValues, written: dict[str, Any], at: Keys) -> dict[str, Any]:
    def note(problems: Iterator[tuple[str, str]]) -> bool:
        noted = {(*at, *key.split(".")): problem for key, problem in problems}
        filling.problems.update(noted)
        return bool(noted)

    name = written.get("preset")
    preset = presets().get(name) if isinstance(name, str) else None
    if note(_choice_problems(preset, written)) or preset is None:
        return written
    keys = preset.keys_for(written.get("region"), written.get("variant"))
    keys |= _transport(preset, written, keys["port"])
    if preset.is_token_twice and isinstance(written.get("password"), str):
        with contextlib.suppress(ValueError):  # the model says what is wrong with it, once
            SecretRef.parse(written["password"])
            keys["username"] = written["password"]
    if isinstance(written.get("oauth"), dict):
        keys |= preset.with_oauth
    filled = filling.lay_under(written, keys, at, f"preset {name}")
    note(_login_problems(preset, filled))
    return filled


def _unknown(value: object, known: Iterable[str], remedy: str) -> str:
    if not isinstance(value, str):
        return f"is not one of {', '.join(known)}; write {remedy}"
    near = difflib.get_close_matches(value.lower(), known, n=1)
    return f"{quoted(value)} is not one of {', '.join(known)}; write {near[0] if near else remedy}"


def quoted(value: object) -> str:
    """Return a value as an error shows it, on one line of ASCII."""
    text = json.dumps(value, default=lambda other: type(other).__name__)
    return text if len(text) <= 80 else text[:76] + '..."'


def _choice_problems(preset: Preset | None, written: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield key and problem of a preset, region or variant that is not there."""
    name, region, variant = (written.get(key) for key in ("preset", "region", "variant"))
    if name is None:
        for key in ("region", "variant"):
            if written.get(key) is not None:
                yield key, "needs a preset; remove it"
        return
    if preset is None:
        yield "preset", _unknown(name, presets(), "host and port for any other service")
        return
    yield from _region_problems(preset, name, region)
    if variant is not None and not preset.variants:
        yield "variant", f"preset {name} has no variants; remove it"
    elif variant is not None and not (isinstance(variant, str) and variant in preset.variants):
        yield "variant", _unknown(variant, preset.variants, "one of them")


def _region_problems(preset: Preset, name: str, region: object) -> Iterator[tuple[str, str]]:
    if region is None:
        if preset.needs_region:
            yield "region", _required(name, preset.asks["region"])
    elif not (preset.regions or preset.region_pattern):
        yield "region", f"preset {name} has no regions; remove it"
    elif not (isinstance(region, str) and preset.has_region(region)):
        if preset.regions:
            yield "region", _unknown(region, preset.regions, "one of them")
        else:
            remedy = preset.asks["region"]
            yield "region", f"{quoted(region)} is not a region of {name}; write {remedy}"


def _required(name: str, what: str) -> str:
    return f"is required with preset {name}; write {what}"


def _transport(preset: Preset, written: dict[str, Any], usual_port: int) -> dict[str, Any]:
    """Port and TLS belong together: either may be written, and the other follows."""
    port = written.get("port")
    if port is None:
        is_implicit = written.get("tls") == "implicit" and preset.implicit_ports
        port = preset.implicit_ports[0] if is_implicit else usual_port
    return {"port": port, **({"tls": "implicit"} if port in preset.implicit_ports else {})}


def _login_problems(preset: Preset, filled: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what only the user knows and did not write: the login, and parts of `oauth`."""
    oauth = filled.get("oauth")
    has_login = oauth is not None or filled.get("username") or filled.get("password")
    if preset.may_lack_auth and not has_login:
        return
    for key, remedy in preset.asks.items():
        section, _, inner = key.rpartition(".")
        if section == "oauth" and isinstance(oauth, dict):
            is_missing = oauth.get(inner) is None
        else:
            is_wanted = key == "username" or (key == "password" and oauth is None)
            is_missing = is_wanted and filled.get(key) is None
        if is_missing:
            yield key, _required(filled["preset"], remedy)
