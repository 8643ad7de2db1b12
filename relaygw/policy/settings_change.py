"""Which keys of a configuration changed between two starts or reloads. Pure; never with values.

Of each value a short hash is kept, and of a list whose entries have names that of each key in them.
What is at its default is left out: a version with more keys, or other defaults, changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from relaygw.settings.model import Settings

SETTINGS_CHANGE = "settings.change"  # the action in the audit trail
Tree = Mapping[str, Any]  # keys, with a hash or the keys below each
_HASH_DIGITS = 12
_MAX_KEYS = 200  # of one mapping or list: a longer one is one value
_NAMES = ("name", "bind")


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsChange:
    """What a line of the trail says."""

    number: int = 0
    after: str | None = None  # hash of all
    keys: Tree | None = None  # None: of a version that noted no keys
    changed: tuple[str, ...] = ()
    what: str = ""  # the same for the same change of several gateways
    who: tuple[str, ...] = ()  # who started it, and wrote what, in words


def keys_of(settings: Settings) -> Tree:
    """Return the keys that are set, with hashes of their values."""
    dump = settings.model_dump(mode="json", exclude_defaults=True)
    # secrets are in it as references only; of passwords there is a hash, which is told from others
    hashes = [user.password_hash for user in settings.users]
    web_hashes = [user.password_hash for user in settings.web.users]
    for place, marks in ((dump, hashes), (dump.get("web", {}), web_hashes)):
        for shown, mark in zip(place.get("users", ()), marks, strict=False):
            shown["password_hash"] = hash_of(mark)
    found = _tree(dump)
    return found if isinstance(found, Mapping) else {}


def hash_of(value: object) -> str:
    """Return some digits that change with a value."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_DIGITS]


def _tree(value: Any) -> Tree | str:
    if isinstance(value, list):
        value = _named(value)
    if isinstance(value, dict) and 0 < len(value) <= _MAX_KEYS:
        return {key: _tree(branch) for key, branch in value.items()}
    return hash_of(value)


def _named(entries: list[Any]) -> Any:
    """Return a list as a mapping, by what its entries are called, where all have a name."""
    for key in _NAMES:
        if all(isinstance(entry, dict) and isinstance(entry.get(key), str) for entry in entries):
            named = {f"[{entry[key]}]": entry for entry in entries}
            if len(named) == len(entries):
                return named
    return entries


def changed_keys(before: Tree, after: Tree, place: str = "") -> Iterator[tuple[str, object]]:
    """Yield what differs, and its new hashes: a key, or the shortest that is new, or is gone."""
    for key in sorted({*before, *after}):
        name = f"{place}{key}" if key.startswith("[") or not place else f"{place}.{key}"
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from changed_keys(old, new, name)
        elif old != new:
            how = " (new)" if old is None else " (removed)" if new is None else ""
            yield name + how, new


def parse_change(detail: str) -> SettingsChange:
    """Read the detail of a SETTINGS_CHANGE; what is none of ours says nothing."""
    try:
        noted = json.loads(detail)
    except ValueError:
        noted = None
    if not isinstance(noted, dict):
        return SettingsChange()
    keys, number = noted.get("keys"), noted.get("number")
    return SettingsChange(
        number=number if isinstance(number, int) else 0,
        after=noted.get("after"),
        keys=keys if isinstance(keys, dict) else None,
        changed=tuple(map(str, noted.get("changed") or ())),
        what=str(noted.get("what", "")),
        who=tuple(map(str, noted.get("who") or ())),
    )
