"""What telling a shop of each delivered mail costs: throughput with a receiver against none."""

from __future__ import annotations

from bench.rig.ports import free_port
from bench.standing.figure import Result
from bench.standing.setting import Setting
from bench.standing.shop import SECRET, Shop
from bench.standing.side_by_side import Kind, shares, side_by_side, spread


def webhooks(setting: Setting) -> Result:
    """Throughput with a receiver of `delivered` that takes, and one that is dead, against none."""
    with Shop() as shop:
        turns = side_by_side(
            setting,
            {
                "none": Kind(),
                "taking": Kind(sections=_told(shop.url), told=lambda: shop.events),
                "dead": Kind(sections=_told(f"http://127.0.0.1:{free_port()}/")),
            },
        )
    figures = [
        figure
        for one in ("taking", "dead")
        for figure in shares(turns, one, "none", at_least=0.95, aim=0.97)
    ]
    return Result(figures, spread(turns))


def _told(url: str) -> dict[str, object]:
    return {"webhooks": [{"url": url, "secret": SECRET, "on": ["delivered"]}]}
