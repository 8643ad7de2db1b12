"""What stands for more than is written: values filled in before the model checks them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from relaygw.settings.tree import Keys


@dataclass(slots=True)
class Filling:
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
