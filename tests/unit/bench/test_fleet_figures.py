"""The figures about fleets are counted as they are told: windows, connections, kills, restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.checking.report import Report
from bench.rig.latency import Sample
from bench.rig.limited_provider import Event
from bench.rig.limited_terms import Terms
from bench.rig.queue_fates import bench_id_of
from bench.standing.fleet_limit import Phase, count
from bench.standing.fleet_outage import judge_outage
from bench.standing.fleet_restarts import judge as judge_restart
from bench.standing.fleet_takeover import judge as judge_kill
from bench.standing.setting import Setting, Size


def journal(words: str) -> list[Event]:
    """Return events of words `SECONDS:KIND:CONNECTION` or `SECONDS:KIND:CONNECTION:ID`."""
    events = []
    for word in words.split():
        at_s, kind, connection, *bench_id = word.split(":")
        events.append(Event(float(at_s), kind, int(connection), *bench_id))
    return events


def sample(bench_id: str, answered_s: float, code: int = 250) -> Sample:
    return Sample(bench_id, answered_s - 0.01, answered_s - 0.005, answered_s, code)


def test_a_span_excludes_its_end() -> None:
    events = [Event(number / 64, "taken", 1) for number in range(2000)]  # exact in binary
    assert count(events, "taken", 10, 20) == 640


def test_mail_of_the_dead_is_awaited_at_the_provider() -> None:
    events = journal("1:taken:1:a 2:taken:2:c 25:taken:3:c 26:taken:3:a 27:taken:3:new")
    found = judge_kill(events, Report(), leased={"a", "b", "c"}, killed_s=3)
    assert (found.leased, found.first_s, found.last_s) == (3, 22, 23)


def test_use_is_counted_from_a_lease_after_the_change_on() -> None:
    early = [Event(100 + number / 25, "accepted", 1) for number in range(500)]
    late = [Event(120 + number / 50, "accepted", 1) for number in range(3000)]
    phase = Phase(3, 100, 180)
    assert phase.at_first(early + late) == 50
    assert phase.settled(early + late) == 100


def test_service_is_back_when_the_last_instance_accepts_and_new_mail_arrives() -> None:
    samples = [
        sample("gw1-1", 9.9),
        sample("gw1-2", 10.2),
        sample("gw2-1", 10.1, code=451),
        sample("gw2-2", 10.7),
    ]
    events = journal("10.1:accepted:1:gw1-1 10.5:accepted:1:gw1-2")
    found = judge_restart(samples, events, 9.5, 10.0, immediately=True)
    assert found.away_s == pytest.approx(0.5)
    assert found.accepting_s == pytest.approx(0.7)
    assert found.delivering_s == pytest.approx(0.5)


def test_service_that_does_not_come_back_takes_forever() -> None:
    found = judge_restart([sample("gw1-1", 10.2)], [], 9.5, 10.0, immediately=False)
    assert (found.accepting_s, found.delivering_s) == (float("inf"), float("inf"))


def test_only_mail_of_the_prefix_is_answered_slowly() -> None:
    terms = Terms(slow_prefix="slow", slow_reply_delay_s=65)
    assert (terms.delay_s("slow-1"), terms.delay_s("quick-1")) == (65, 0.01)
    assert Terms().delay_s("slow-1") == 0.01


def test_a_message_id_tells_the_bench_id() -> None:
    assert bench_id_of("<gw1-247@bench.test>") == "gw1-247"


def test_logs_of_several_gateways_are_kept_apart(tmp_path: Path) -> None:
    run, kept = tmp_path / "run", tmp_path / "kept"
    for name in ("gw1", "gw2"):
        (run / name).mkdir(parents=True)
        (run / name / "mail.log").write_text(name)
    Setting(tmp_path, Size(), kept).keep(run, "case")
    assert {path.name: path.read_text() for path in (kept / "case").iterdir()} == {
        "gw1-mail.log": "gw1",
        "gw2-mail.log": "gw2",
    }


def test_an_outage_ends_with_the_slower_front_and_with_any_delivery() -> None:
    samples = [sample("gw1-1", 11.0), sample("gw2-1", 12.5), sample("gw2-0", 9.0)]
    events = journal("8:accepted:1:gw1-0 10.4:taken:1:gw1-2 10.9:accepted:1:gw1-2")
    outage = judge_outage(samples, events, 2.0, 10.0, immediately=False)
    assert (outage.away_s, outage.accepting_s) == (8.0, 2.5)
    assert outage.delivering_s == pytest.approx(0.9)
    never = judge_outage([], [], 2.0, 10.0, immediately=True)
    assert never.accepting_s == never.delivering_s == float("inf")
