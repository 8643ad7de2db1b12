"""What counting by source, guard, silence and storms cost: throughput with all on against all off.

As they come, guard and storms alert. The most they do is to hold, and to take copies once; then a
mail is looked at before it is answered. Each has a recipient of its own: none of it is a storm.
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
_MOST: dict[str, Any] = {
    "guard": {"action": "hold"},
    "storms": {"action": "hold"},
    "duplicates": "once",
}


def guard(setting: Setting) -> Result:
    """Throughput with sources, guard, silence and storms as they come, and with all they do."""
    kinds = {"off": Kind(sections=_OFF), "on": Kind(), "hold, once": Kind(sections=_MOST)}
    turns = side_by_side(setting, kinds)
    figures = shares(turns, "on", "off", at_least=0.95, aim=0.98)
    return Result(figures + shares(turns, "hold, once", "off"), spread(turns))
