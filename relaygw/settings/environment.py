"""Settings from the environment: RELAYGW__QUEUE__URL lays `queue.url` over the files.

Values are read as YAML writes them: a scalar, or a list or mapping in brackets. A mapping is
merged, everything else replaces. A number selects an entry of a list, the next free number
adds one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relaygw.settings.schema import expectation
from relaygw.settings.tree import Keys, Place, Tree, shown_keys
from relaygw.settings.yaml_text import read_flow

_PREFIX = "RELAYGW__"


def merge_environment(tree: Tree, environ: Mapping[str, str]) -> None:
    """Lay every RELAYGW__ variable over `tree`; what cannot be used becomes a problem line."""
    # sorted: what is nearer the top comes first, RELAYGW__QUEUE before RELAYGW__QUEUE__URL
    for name in sorted(name for name in environ if name.startswith(_PREFIX)):
        place = Place(f"environment {name}")
        try:
            _set(tree, name.removeprefix(_PREFIX).split("__"), read_flow(environ[name]), place)
        except ValueError as error:
            tree.problems.append(f"{place}: {error}")


def _set(tree: Tree, segments: list[str], value: Any, place: Place) -> None:
    if not all(segments):
        raise ValueError("is no key; write two underscores between keys: RELAYGW__QUEUE__URL")
    container: Any = tree.values
    keys: Keys = ()
    for segment in segments[:-1]:
        keys = (*keys, _key_in(container, segment))
        container = _child(tree, container, keys, place)
    _put(tree, container, (*keys, _key_in(container, segments[-1])), value, place)


def _key_in(container: Any, segment: str) -> str | int:
    """Return the key or position that a segment of a variable's name means."""
    if isinstance(container, list):
        if segment.isdecimal() and int(segment) <= len(container):
            return int(segment)
        raise ValueError("the list has no such entry; count from 0, or set the whole list")
    wanted = segment.lower()
    # a variable's name has no hyphen: SES_PROMO means the provider ses-promo
    return next((key for key in container if key.lower().replace("-", "_") == wanted), wanted)


def _child(tree: Tree, container: Any, keys: Keys, place: Place) -> Any:
    key = keys[-1]
    if _at(container, key) is None:
        _assign(container, key, [] if expectation(keys) == "a list" else {})
        tree.places[keys] = place
    child = container[key]
    if not isinstance(child, (dict, list)):
        raise ValueError(f"{shown_keys(keys)} holds one value; set that key instead")
    return child


def _put(tree: Tree, container: Any, keys: Keys, value: Any, place: Place) -> None:
    key = keys[-1]
    old = _at(container, key)
    if isinstance(value, dict) and isinstance(old, dict):
        for inner, item in value.items():
            _put(tree, old, (*keys, inner), item, place)
        return
    _assign(container, key, value)
    tree.forget_places(keys)
    _mark(tree, keys, value, place)


def _at(container: Any, key: str | int) -> Any:
    if isinstance(container, list):
        return container[key] if isinstance(key, int) and key < len(container) else None
    return container.get(key)


def _assign(container: Any, key: str | int, value: Any) -> None:
    if isinstance(container, list) and key == len(container):
        container.append(value)
    else:
        container[key] = value


def _mark(tree: Tree, keys: Keys, value: Any, place: Place) -> None:
    tree.places[keys] = place
    if isinstance(value, dict):
        for key, item in value.items():
            _mark(tree, (*keys, key), item, place)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            _mark(tree, (*keys, position), item, place)
