"""What logging, metrics, history and alerts cost: throughput with all of them against none."""

from __future__ import annotations

import urllib.request

from bench.rig.ports import free_port
from bench.rig.repeated import repeated
from bench.standing.figure import Result
from bench.standing.setting import Setting
from bench.standing.side_by_side import Kind, shares, side_by_side, spread

SCRAPE_EACH_S = 5.0  # Prometheus' own default is a minute
UNOBSERVED = ("-m", "bench.rig.unobserved")


def observing(setting: Setting) -> Result:
    """Throughput with log, metrics, history and alerts against none of them."""
    port = free_port()
    observed = {
        "metrics": {"bind": f"127.0.0.1:{port}"},
        "alerts": [{"webhook": f"plain:http://127.0.0.1:{free_port()}/"}],
    }
    kinds = {"none": Kind(program=UNOBSERVED), "all": Kind(sections=observed)}
    with repeated(lambda: _scrape(port), each_s=SCRAPE_EACH_S):
        turns = side_by_side(setting, kinds)
    return Result(shares(turns, "all", "none", at_least=0.9, aim=0.95), spread(turns))


def _scrape(port: int) -> None:
    """Read the metrics as Prometheus does."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        answer.read()
