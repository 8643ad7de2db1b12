"""What is known of mail services, read from presets.yaml beside this file.

A preset says which keys of a provider it fills in, for which regions and variants, and what
only the user knows. How it is laid under a configuration is in `preset_filling`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from relaygw.settings.section import Port, Section
from relaygw.settings.tree import Place
from relaygw.settings.yaml_text import read_tree

DATA = Path(__file__).with_name("presets.yaml")


class Choice(Section):
    """A region or a variant of a service."""

    about: str = ""
    keys: dict[str, Any] = {}


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
    notes: tuple[str, ...] = ()
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
        """Return the keys to fill in, for a region and a variant that exist (None: the default).

        Without a region where one is needed, the host still has `{region}` in it.
        """
        region = region or self.default_region
        variant = variant or self.default_variant
        keys = {"host": "", "port": self.starttls_ports[0], **self.keys}
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
    tree = read_tree(DATA.read_bytes(), Place(DATA.name))
    assert not tree.problems, tree.problems
    return {name: Preset.model_validate(entry) for name, entry in tree.values.items()}
