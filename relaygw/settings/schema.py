"""Questions to the model about a key: which section it is in, what it expects.

Pure look-ups in the pydantic classes, for error texts and for the check that every key is
documented.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from relaygw.settings.model import Settings
from relaygw.settings.section import Section
from relaygw.settings.tree import Keys


def field_at(keys: Keys) -> FieldInfo | None:
    """Return the field that `keys` name, or None when they name an entry or nothing."""
    section = section_at(keys[:-1])
    return section.model_fields.get(str(keys[-1])) if section and keys else None


def section_at(keys: Keys) -> type[Section] | None:
    """Return the section that `keys` lead to, or None when there is no section."""
    kind = _type_at(keys)
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def expectation(keys: Keys) -> str:
    """Return what the model wants at `keys`, such as `an integer 1-65535`."""
    kind = _type_at(keys)
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return "one of " + ", ".join(kind)
    if get_origin(kind) is tuple:
        return "a list"
    if get_origin(kind) is dict or section_at(keys):
        return "a mapping"
    names = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
    return names.get(kind, "a known value") + _range(field_at(keys))


def example(keys: Keys) -> str | None:
    """Return a value that fits, from the model's examples or its default."""
    info = field_at(keys)
    if info is None:
        return None
    if info.examples:
        return str(info.examples[0])
    is_scalar = isinstance(info.default, (bool, int, float))
    return json.dumps(info.default) if is_scalar else None


def all_keys() -> Iterator[tuple[str, FieldInfo]]:
    """Yield every key of the model with its field: `listeners[].bind`, `providers.NAME.port`."""
    yield from _keys_of(Settings, "")


def _keys_of(section: type[Section], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, info in section.model_fields.items():
        kind = _bare(info.annotation)
        inner = {dict: ".NAME", tuple: "[]"}.get(get_origin(kind), "")
        item = _bare(get_args(kind)[1 if inner == ".NAME" else 0]) if inner else kind
        # a field with its own written form is a value to the user, whatever it is inside
        if isinstance(item, type) and issubclass(item, Section) and not info.metadata:
            if not inner:
                yield from _keys_of(item, f"{prefix}{name}.")
                continue
            yield from _keys_of(item, f"{prefix}{name}{inner}.")
        else:
            yield f"{prefix}{name}", info


def _type_at(keys: Keys) -> Any:
    kind: Any = Settings
    for key in keys:
        if isinstance(kind, type) and issubclass(kind, Section):
            info = kind.model_fields.get(str(key))
            kind = _bare(info.annotation) if info else None
        elif get_origin(kind) in (dict, tuple):
            kind = _bare(get_args(kind)[1 if get_origin(kind) is dict else 0])
        else:
            return None
    return kind


def _bare(annotation: Any) -> Any:
    """Return the type without Annotated and without `| None`."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return _bare(next(one for one in get_args(annotation) if one is not type(None)))
    return annotation


def _range(info: FieldInfo | None) -> str:
    limits = {
        name: getattr(mark, name)
        for mark in (info.metadata if info else ())
        for name in ("ge", "gt", "le")
        if getattr(mark, name, None) is not None
    }
    if "ge" in limits and "le" in limits:
        return f" {limits['ge']}-{limits['le']}"
    if "ge" in limits:
        return f" from {limits['ge']}"
    return f" above {limits['gt']}" if "gt" in limits else ""
