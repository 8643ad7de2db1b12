"""Lays presets under the providers that name one; every key of the user's own stays.

What a preset cannot know and the user did not write is a problem that says what to write.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any

from relaygw.settings.filling import Filling
from relaygw.settings.presets import Preset, presets
from relaygw.settings.secrets import SecretRef
from relaygw.settings.tree import Keys


def fill_presets(filling: Filling) -> None:
    """Fill in what the providers' presets say, and note what is missing."""
    providers = filling.values.get("providers")
    if not isinstance(providers, dict):
        return
    filled = dict(providers)
    for name, written in providers.items():
        if isinstance(written, dict):
            filled[name] = _fill(filling, written, ("providers", name))
    filling.values["providers"] = filled


def _fill(filling: Filling, written: dict[str, Any], at: Keys) -> dict[str, Any]:
    name = written.get("preset")
    if name is None:
        for key in ("region", "variant"):
            if written.get(key) is not None:
                filling.problems[(*at, key)] = "belongs to a preset and there is none; remove it"
        return written
    preset = presets().get(name) if isinstance(name, str) else None
    if preset is None:
        remedy = "host and port for any other service"
        filling.problems[(*at, "preset")] = _unknown(name, presets(), remedy)
        return written
    _check_choices(filling, preset, written, at)
    if any(key[: len(at)] == at for key in filling.problems):
        return written
    keys = preset.keys_for(written.get("region"), written.get("variant"))
    keys |= _transport(preset, written) | _token_twice(preset, written)
    if isinstance(written.get("oauth"), dict):
        keys |= preset.with_oauth
    filled = filling.lay_under(written, keys, at, f"preset {name}")
    _check_asked(filling, preset, filled, at)
    return filled


def _unknown(value: object, known: Iterable[str], remedy: str) -> str:
    if not isinstance(value, str):
        return f"is not one of {', '.join(known)}; write {remedy}"
    near = difflib.get_close_matches(value.lower(), known, n=1)
    return f"{_quoted(value)} is not one of {', '.join(known)}; write {near[0] if near else remedy}"


def _quoted(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:76] + '..."'


def _check_choices(filling: Filling, preset: Preset, written: dict[str, Any], at: Keys) -> None:
    name, region, variant = written["preset"], written.get("region"), written.get("variant")
    if region is None:
        if preset.needs_region:
            filling.problems[(*at, "region")] = _required(name, preset.asks["region"])
    elif not (preset.regions or preset.region_pattern):
        filling.problems[(*at, "region")] = f"preset {name} has no regions; remove it"
    elif not (isinstance(region, str) and preset.has_region(region)):
        filling.problems[(*at, "region")] = (
            _unknown(region, preset.regions, "one of them")
            if preset.regions
            else f"{_quoted(region)} is not a region of {name}; write {preset.asks['region']}"
        )
    if variant is None:
        return
    if not preset.variants:
        filling.problems[(*at, "variant")] = f"preset {name} has no variants; remove it"
    elif not (isinstance(variant, str) and variant in preset.variants):
        filling.problems[(*at, "variant")] = _unknown(variant, preset.variants, "one of them")


def _required(name: str, what: str) -> str:
    return f"is required with preset {name}; write {what}"


def _transport(preset: Preset, written: dict[str, Any]) -> dict[str, Any]:
    """Port and TLS belong together: either may be written, and the other follows."""
    if written.get("tls") == "implicit" and written.get("port") is None and preset.implicit_ports:
        return {"port": preset.implicit_ports[0]}
    if written.get("port") in preset.implicit_ports:
        return {"tls": "implicit"}
    return {}


def _token_twice(preset: Preset, written: dict[str, Any]) -> dict[str, Any]:
    password = written.get("password")
    if not preset.is_token_twice or not isinstance(password, str):
        return {}
    try:
        SecretRef.parse(password)
    except ValueError:
        return {}  # the model says what is wrong with it, once
    return {"username": password}


def _check_asked(filling: Filling, preset: Preset, filled: dict[str, Any], at: Keys) -> None:
    """Note what only the user knows and did not write: the login, and parts of `oauth`."""
    oauth = filled.get("oauth")
    has_login = oauth is not None or filled.get("username") or filled.get("password")
    if preset.may_lack_auth and not has_login:
        return
    for key in preset.asks:
        section, _, inner = key.rpartition(".")
        if section == "oauth" and isinstance(oauth, dict):
            is_missing = oauth.get(inner) is None
        else:
            is_wanted = key == "username" or (key == "password" and oauth is None)
            is_missing = is_wanted and filled.get(key) is None
        if is_missing:
            filling.problems[(*at, *key.split("."))] = _required(filled["preset"], preset.asks[key])
