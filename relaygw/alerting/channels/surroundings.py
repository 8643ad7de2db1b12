"""What programs that tell people get of the gateway's environment, where keys of providers are."""

from __future__ import annotations

import os

_NAMES = ("PATH", "HOME", "TZ", "LANG", "LANGUAGE")


def surroundings(*more: str) -> dict[str, str]:
    """Return the variables that any program needs, and those of `more`, as far as they are set."""
    wanted = {*_NAMES, *more}
    return {
        name: value
        for name, value in os.environ.items()
        if name in wanted or name.startswith("LC_")
    }
