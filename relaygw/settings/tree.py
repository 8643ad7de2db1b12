"""Trees of plain values that remember where each one was written.

Files and environment are read into trees and laid over each other; then values are filled in that
stand for more than is written. The places survive, so that an error or `config show --origin` can
name the line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relaygw.mail.words import printable

Keys = tuple[str | int, ...]
"""The way to a value: mapping keys and list positions, from the top."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value was written."""

    source: str  # a file's short name, or "environment NAME"
    line: int | None = None
    file: Path | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(slots=True)
class Tree:
    """Values, the place of each by its keys, and what is wrong with the text."""

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[Keys, Place] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    is_readable: bool = True  # False: the text is no YAML, so `values` says nothing

    def merge(self, other: Tree) -> None:
        """Lay `other` over this tree: mappings deep, lists and scalars replace."""
        self._merge_mapping(self.values, other.values, ())
        whole = self.places.get(())
        self.places.update(other.places)
        if whole is not None:
            self.places[()] = whole
        self.problems += other.problems
        self.is_readable = self.is_readable and other.is_readable

    def _merge_mapping(self, base: dict[str, Any], over: dict[str, Any], keys: Keys) -> None:
        for key, value in over.items():
            at = (*keys, key)
            if isinstance(value, dict) and isinstance(base.get(key), dict):
                self._merge_mapping(base[key], value, at)
                continue
            self.forget_places(at)
            base[key] = value

    def forget_places(self, keys: Keys) -> None:
        """Drop the place of a value that is replaced, and of all inside it."""
        for stale in [known for known in self.places if known[: len(keys)] == keys]:
            del self.places[stale]

    def place_of(self, keys: Keys) -> Place | None:
        """Return the place of a value, or of the nearest thing around it."""
        for length in range(len(keys), -1, -1):
            if keys[:length] in self.places:
                return self.places[keys[:length]]
        return None

    def line_for(self, keys: Keys, problem: str) -> str:
        """Return the line for one problem: where, which key, what."""
        place = self.place_of(keys)
        key = shown_keys(keys) or "the configuration"
        return f"{place}: {key}: {problem}" if place else f"{key}: {problem}"


@dataclass(slots=True)
class FilledValues:
    """A configuration's values as they are filled in.

    `origins` says where a filled-in value comes from; `problems` what cannot be filled in, by
    the key to point at.
    """

    values: dict[str, Any]
    origins: dict[Keys, str] = field(default_factory=dict)
    problems: dict[Keys, str] = field(default_factory=dict)

    def lay_under(
        self, written: dict[str, Any], keys: Mapping[str, Any], at: Keys, origin: str
    ) -> dict[str, Any]:
        """Return `written` with what `keys` adds to it; mappings are merged, null is nothing.

        Names are compared without case, since header fields are the same by any case.
        """
        merged = dict(written)
        taken = {name.lower(): name for name, value in written.items() if value is not None}
        for name, value in keys.items():
            here = taken.get(name.lower())
            if here is None:
                merged[name] = value
                self.origins.update(dict.fromkeys(_leaves((*at, name), value), origin))
            elif isinstance(value, dict) and isinstance(merged[here], dict):
                merged[here] = self.lay_under(merged[here], value, (*at, here), origin)
        return merged


def _leaves(at: Keys, value: Any) -> Iterator[Keys]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves((*at, name), item)
    else:
        yield at


def shown_keys(keys: Keys) -> str:
    """Return the dotted form, safe to print on one line.

    A key with a colon is cut there: where the space after the colon was forgotten, the rest
    is a value.
    """
    parts = (str(key) for key in keys)
    return ".".join(
        printable(part.partition(":")[0])[:64] + (":…" if ":" in part else "") for part in parts
    )
