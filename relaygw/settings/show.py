"""Settings as an operator sees them: every value with its origin, secrets masked.

Values appear in the form that relaygw.yaml takes, so a line can be copied into a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from relaygw.settings.model import Settings
from relaygw.settings.tree import Keys, shown_keys

if TYPE_CHECKING:
    from relaygw.settings.load import LoadedSettings


def shown_leaves(settings: Settings) -> Iterator[tuple[Keys, str]]:
    """Yield keys and YAML form of every value; lists of scalars count as one value."""
    yield from _leaves((), settings.model_dump(mode="json"))


def _leaves(keys: Keys, value: Any) -> Iterator[tuple[Keys, str]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves((*keys, key), item)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for position, item in enumerate(value):
            yield from _leaves((*keys, position), item)
    else:
        # JSON is YAML, and its escapes keep a line one line
        yield keys, json.dumps(value, ensure_ascii=False) if value is not None else "~"


def origin_lines(loaded: LoadedSettings) -> Iterator[tuple[str, str, str]]:
    """Yield (dotted key, value in YAML, origin) for every value, in the model's order."""
    for keys, value in shown_leaves(loaded.settings):
        key = shown_keys(keys)
        yield key, value, loaded.origins[key]


def fingerprint(settings: Settings) -> str:
    """Return 16 hex digits that change with what decides where mail goes.

    Instances compare it to find out that they run different routing or policy settings;
    passwords are no part of it.
    """
    decisive = settings.model_dump(
        mode="json",
        include={
            "mode": True,
            "routes": True,
            "recipients": True,
            "rewrite": True,
            "providers": True,
            "listeners": {"__all__": {"mode"}},  # each gateway binds its own addresses
            "users": {"__all__": {"name", "mode", "senders"}},
        },
        exclude={"providers": {"__all__": {"password", "oauth"}}},
    )
    text = json.dumps(decisive, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
