"""What logging, metrics, history and alerts cost: throughput with all of them against none."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from bench.rig.ports import free_port
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
    with _scraped(port):
        turns = side_by_side(setting, kinds)
    return Result(shares(turns, "all", "none", at_least=0.9, aim=0.95), spread(turns))


@contextmanager
def _scraped(port: int) -> Iterator[None]:
    """Read the metrics as Prometheus does, within a with block."""
    is_over = threading.Event()

    def scrape() -> None:
        while not is_over.wait(SCRAPE_EACH_S):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                answer.read()

    thread = threading.Thread(target=scrape, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
