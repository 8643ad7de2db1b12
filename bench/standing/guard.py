"""What counting by source, guard, silence and storms cost: throughput with all on against all off.

Each mail has a recipient of its own, so that none of it is a storm; the guard alerts.
"""

from __future__ import annotations

from typing import Any

from bench.standing.figure import Result
from bench.standing.setting import Setting
from bench.standing.side_by_side import Kind, shares, side_by_side, spread

_OFF: dict[str, Any] = {
    "guard": {"action": "off"},
    "silence": {"enabled": False},
    "storms": {"action": "off"},
}
_ON: dict[str, Any] = {
    "guard": {"action": "alert"},
    "silence": {"enabled": True},
    "storms": {"action": "hold"},
    "duplicates": "once",
}


def guard(setting: Setting) -> Result:
    """Throughput with sources, guard, silence and storms against none of them."""
    turns = side_by_side(setting, {"off": Kind(sections=_OFF), "on": Kind(sections=_ON)})
    return Result(shares(turns, "on", "off", at_least=0.95, aim=0.98), spread(turns))
