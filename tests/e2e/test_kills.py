"""Processes are killed at random while mail flows, and the history of it is checked.

What may arrive twice is only what a worker had sent and not yet recorded when it was killed
(RFC 1047), and of each such mail the queue has a doubt. A gateway with a planted fault is found.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.checking.checker import check
from bench.checking.report import Report
from bench.history import read_history
from bench.killing.campaign import HISTORY, Plan, run
from bench.killing.servers import RETRY
from bench.rig.gateway import Gateway, provider
from tests.campaign import times

pytestmark = pytest.mark.campaign

SEED = 20_250
CONNECTIONS = 3
VICTIMS = ("front", "delivery", "supervisor", "all")


def killed(
    directory: Path,
    kills: Mapping[str, int],
    control: str = "",
    *,
    delay_ms: float = 20.0,
    **sections: Any,
) -> Report:
    """Kill processes of a gateway under load; return what the history of it proves."""

    def gateway(place: Path, port: int) -> Gateway:
        upstream = {"main": provider(port, max_connections=CONNECTIONS)}
        made = Gateway(place, providers=upstream, retry=RETRY, **sections)
        made.program = ("-m", "bench.killing.controls", control) if control else made.program
        return made

    plan = Plan(
        kills=kills,
        seed=SEED,
        sink_delay_ms=delay_ms,
        sink_delay_at="dot",
        connections=2,
        backlog=30,
        warm_up=10,
        server=gateway,
        about={"control": control},
    )
    run(directory, plan)
    report = check(read_history(directory / HISTORY))
    print(report.to_text())
    return report


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_random_kills_lose_and_invent_nothing_and_each_extra_is_a_recorded_doubt(
    tmp_path: Path, request: pytest.FixtureRequest, database: str
) -> None:
    each = times(1, campaign={"sqlite": 10, "postgres": 4}[database])
    sections: dict[str, Any] = {}
    if database == "postgres":
        sections["queue"] = {"url": request.getfixturevalue("queue_url"), "min_free": "0%"}
    report = killed(tmp_path, dict.fromkeys(VICTIMS, each), "", **sections)
    assert report.is_clean, report.anomalies
    assert report.kills >= 4 * each
    assert report.recovered


@pytest.mark.parametrize(
    ("control", "victim", "delay_ms", "kind"),
    [
        ("careless", "front", 20.0, "lost"),  # clients send on and on
        ("forgetful", "delivery", 400.0, "unrecorded"),  # all connections wait for an answer
    ],
)
def test_a_planted_fault_is_found(
    tmp_path: Path, control: str, victim: str, delay_ms: float, kind: str
) -> None:
    counts = killed(tmp_path, {victim: 1}, control, delay_ms=delay_ms).counts()
    assert [kind for kind, count in counts.items() if count] == [kind]
