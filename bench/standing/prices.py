"""What each feature costs: the processor time a message without it, beside that with it.

Each gateway differs in one switch from one as it comes; a price is what the median turn with the
feature takes more of the front, of the worker and of the web role.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from bench.rig.ports import free_port
from bench.rig.processor_time import ALL
from bench.standing.all_feedback import NO_LIMIT, WITHOUT_LOGIN, all_on
from bench.standing.figure import Result
from bench.standing.observing import UNOBSERVED
from bench.standing.setting import Setting
from bench.standing.shop import Shop
from bench.standing.side_by_side import Kind, Turn, side_by_side

AS_IT_COMES = "as it comes"
_ROLES = ("relaygw-front", "relaygw-deliver", "relaygw-web")
_HEAD = "                      front  worker     web     all  us of processor time a message"


def prices(setting: Setting) -> Result:
    """Processor time a message that each feature takes, one switch at a time."""
    with Shop() as shop:
        left_out, added = _left_out(), _added(shop)
        turns = side_by_side(setting, {AS_IT_COMES: Kind(), **left_out, **added})
    base = turns[AS_IT_COMES]
    lines = [_HEAD, _line(AS_IT_COMES, base)]
    lines += [_line(name, _more(base, turns[name])) for name in left_out]
    lines += [_line(name, _more(turns[name], base)) for name in added]
    return Result([], lines)


def _left_out() -> dict[str, Kind]:
    """Return gateways without something that is on as it comes."""
    return {
        "log, metrics, alerts": Kind(program=UNOBSERVED),
        "sources and guard": Kind(sections={"guard": {"action": "off"}}),
        "silence": Kind(sections={"silence": {"enabled": False}}),
        "storms": Kind(sections={"storms": {"action": "off"}}),
        "suppression": Kind(
            sections={"suppression": {"transactional": "off", "promotional": "off"}}
        ),
    }


def _added(shop: Shop) -> dict[str, Kind]:
    """Return gateways with something more than as they come."""
    of_preset, sections = all_on(shop.url)
    listener: dict[str, Any] = {"events": sections["events"]}
    check = {"content_check": {"transactional": "warn", "promotional": "warn"}}
    return {
        "events and key": Kind(
            provider=NO_LIMIT | of_preset, sections=listener, program=WITHOUT_LOGIN
        ),
        "webhooks": Kind(sections={"webhooks": sections["webhooks"]}, told=lambda: shop.events),
        "notices": Kind(sections={key: sections[key] for key in ("bounces", "retry")}),
        "duplicates: once": Kind(sections={"duplicates": "once"}),
        "content check": Kind(sections=check),
        "a rate": Kind(provider=NO_LIMIT),
        "metrics.bind": Kind(sections={"metrics": {"bind": f"127.0.0.1:{free_port()}"}}),
        "keep_content": Kind(sections={"queue": {"keep_content": "1d"}}),
    }


def _times(turn: Turn) -> list[float]:
    return [turn.processor_us.get(role, 0.0) for role in (*_ROLES, ALL)]


def _more(one: Sequence[Turn], other: Sequence[Turn]) -> list[list[float]]:
    """Return what the first takes more, by round and role."""
    return [
        [a - b for a, b in zip(_times(x), _times(y), strict=True)]
        for x, y in zip(one, other, strict=True)
    ]


def _line(name: str, rounds: Sequence[Turn] | Sequence[Sequence[float]]) -> str:
    rows = [_times(one) if isinstance(one, Turn) else one for one in rounds]
    columns = (statistics.median(column) for column in zip(*rows, strict=True))
    return f"  {name:21}{''.join(f'{value:8.0f}' for value in columns)}".rstrip()
