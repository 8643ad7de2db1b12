"""bench/fleets: what a seed decides, how soon a gateway is back, what counts as a bounded loss."""

from __future__ import annotations

import socket
from collections import Counter
from pathlib import Path

import pytest

from bench.checking.report import Report
from bench.fleet_faults.control import Loss
from bench.fleet_faults.outcome import NEVER_S, Outcome, recoveries
from bench.fleet_faults.plans import KINDS, LEASE_S, LONG, SHORT, Plan, plan_of
from bench.fleet_faults.table import table
from bench.history import INFO, OK, Event
from bench.rig.long_line import LongLine
from relaygw.delivery import waits

CLEAN = Report(attempted=1, acknowledged=1, delivered=1)
S = 10**9


def outcome(plan: Plan, report: Report = CLEAN, trouble: str = "") -> Outcome:
    return Outcome(plan, Path("files"), report, trouble, 9.0, 1.5, 2.5)


def test_a_seed_always_decides_the_same_and_the_kinds_take_turns() -> None:
    plans = [plan_of(seed) for seed in range(140)]
    assert plans == [plan_of(seed) for seed in range(140)]
    assert Counter(plan.kind for plan in plans) == dict.fromkeys(KINDS, 20)
    assert {plan.target for plan in plans} == {0, 1}
    assert plan_of(5, ["cut"]).kind == "cut"


def test_every_way_comes_and_some_outlast_the_lease() -> None:
    plans = [plan_of(seed) for seed in range(1400)]
    ways = {(plan.kind, plan.way) for plan in plans}
    assert ways == {(kind, way) for kind, some in SHORT.items() for way in some}
    long = {(plan.kind, plan.way) for plan in plans if plan.is_long}
    assert long == {(kind, way) for kind, some in LONG.items() for way in some}
    assert waits.LEASE_S == LEASE_S


def test_a_gateway_is_back_with_its_own_250_and_its_own_mail() -> None:
    events = [
        Event(1 * S, "client-0", OK, "send", {"message": "a"}),
        Event(3 * S, "client-256", OK, "send", {"message": "b"}),  # of the other gateway
        Event(4 * S, "main/1", INFO, "dot", {"message": "b"}),
        Event(5 * S, "main/1", INFO, "dot", {"message": "a"}),  # of before
        Event(6 * S, "client-1", OK, "send", {"message": "c"}),
        Event(8 * S, "main/1", INFO, "dot", {"message": "c"}),
    ]
    assert recoveries(events, {0: 2 * S}) == (4.0, 6.0)
    assert recoveries(events, {0: 2 * S, 1: 2 * S}) == (4.0, 6.0)
    assert recoveries(events, {1: 3 * S + 1}) == (NEVER_S, NEVER_S)


def lossy(*lost_s: float) -> Loss:
    report = Report(attempted=9, acknowledged=9)
    for at_s in lost_s:
        report.add("lost", (str(at_s), ""), "acknowledged", int(at_s * S))
    return Loss(report, 10 * S, 14 * S, 15 * S, [9 * S, 11 * S, 13 * S])


@pytest.mark.parametrize(
    ("lost_s", "is_found"), [((11, 13), True), ((), False), ((9, 11), False), ((11, 16), False)]
)
def test_a_control_loses_only_what_was_answered_in_the_lag(
    lost_s: tuple[float, ...], is_found: bool
) -> None:
    loss = lossy(*lost_s)
    assert loss.is_found is is_found
    assert "lagged for 4.00 s" in loss.to_text()


def test_the_table_names_what_is_not_good() -> None:
    good, bad, stuck = (plan_of(seed) for seed in (0, 1, 2))
    assert table([outcome(good)]).endswith("\nGOOD: 1 of 1 runs")
    lost = Report(attempted=2, acknowledged=2)
    lost.add("lost", ("a", ""), "acknowledged; neither taken nor queued", 1)
    text = table([outcome(good), outcome(bad, lost), outcome(stuck, trouble="waited in vain")])
    assert text.endswith("\nNOT GOOD: 1 of 3 runs")
    assert "bench/fleets 1 --kind stop" in text
    assert "waited in vain" in text
    assert not table([]).endswith("\nGOOD: 0 of 0 runs")


def test_a_silent_line_closes_nothing_and_passes_on_later_what_came() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        LongLine(connect_port=server.getsockname()[1], round_trip_ms=0) as line,
        socket.create_connection(("127.0.0.1", line.port), timeout=30) as client,
    ):
        far, _ = server.accept()
        with far:
            far.settimeout(30)
            client.sendall(b"a")
            assert far.recv(1) == b"a"
            line.silence()
            client.sendall(b"b")
            far.sendall(b"c")
            line.release()
            assert (far.recv(1), client.recv(1)) == (b"b", b"c")
            line.hold()
            assert far.recv(1) == b""
