"""bench/soak tells what grows from what only jumps, and is not content with what it did not see."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from bench.checking.report import Report
from bench.rig.message import compose, digest, id_of, named
from bench.soaking.faults import FAULTS, OF_POSTGRES, OTHERS, RENEWING, Seen
from bench.soaking.page import page
from bench.soaking.samples import DATABASE, EVERY_S, Sample, read_samples, write_samples
from bench.soaking.schedule import plan_slots
from bench.soaking.trends import find_trends
from bench.soaking.verdict import Verdict

RUN_S = 720.0
MIB = 1 << 20
CLEAN = Report(attempted=1, acknowledged=1)


def series(of: str, measure: str, value: Callable[[float], float]) -> Iterator[Sample]:
    """Return a series with a life of its own for each four minutes, as kills make them."""
    for number in range(int(RUN_S / EVERY_S)):
        at_s = number * EVERY_S
        life = 0 if of == DATABASE else 1 + int(at_s // 240)
        yield Sample(at_s, of, life, measure, value(at_s))


def steady(**changed: Callable[[float], float]) -> list[Sample]:
    """Return the samples of a good run, but for what is named otherwise: role__measure."""
    usual: dict[str, Callable[[float], float]] = {
        "front__pss_bytes": lambda at_s: (40 + at_s % 240 / 60) * MIB,  # grows a bit, then ends
        "front__descriptors": lambda at_s: 50 + (20 if at_s % 100 < 20 else 0),
        "front__threads": lambda at_s: 6,
        "database__bytes": lambda at_s: min(at_s, 120) / 120 * 9 * MIB,
        "database__wal_bytes": lambda at_s: 4 * MIB * (1 + math.sin(at_s)),
        "database__rows": lambda at_s: min(at_s, 120) * 40 + at_s % 60 * 40,  # once a minute
    }
    return [
        one for name, value in (usual | changed).items() for one in series(*name.split("__"), value)
    ]


def judged(samples: list[Sample], seen: list[Seen] | None = None) -> Verdict:
    done = seen or [Seen("burst", 100.0, 101.0, 110.0)]
    return Verdict.of(samples, done, CLEAN, run_s=RUN_S, begun_s=90.0)


def test_bursts_ends_and_what_comes_and_goes_are_no_trend() -> None:
    verdict = judged(steady())
    assert verdict.is_good, verdict.to_text()
    assert verdict.to_text().endswith("\nGOOD")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("front__pss_bytes", lambda at_s: (40 + at_s % 240 / 12) * MIB),
        ("front__descriptors", lambda at_s: 50 + at_s % 240 / 30),
        ("front__threads", lambda at_s: 6 + at_s % 240 // 40),
        ("database__bytes", lambda at_s: (5 + at_s / 60) * MIB),
        ("database__wal_bytes", lambda at_s: at_s * MIB / 10),
        ("database__rows", lambda at_s: 40 * at_s),
    ],
)
def test_what_grows_is_found(name: str, value: Callable[[float], float]) -> None:
    verdict = judged(steady(**{name: value}))
    assert [f"{one.of}__{one.measure}" for one in verdict.growing] == [name]
    assert not verdict.is_good


def test_a_process_that_never_lives_long_enough_is_not_called_flat() -> None:
    short = [
        one._replace(life=int(one.at_s // 20)) if one.of == "front" else one for one in steady()
    ]
    assert {one.of for one in find_trends(short) if not one.is_flat} == {"front"}


def test_a_control_is_found_only_by_all_that_it_leaks() -> None:
    leaks: dict[str, Callable[[float], float]] = {
        "front__pss_bytes": lambda at_s: (40 + at_s % 240 / 10) * MIB,
        "front__descriptors": lambda at_s: 50 + at_s % 240,
        "database__rows": lambda at_s: 40 * at_s,
    }
    assert judged(steady(**leaks)).finds_the_leak
    for spared in leaks:
        rest = {name: value for name, value in leaks.items() if name != spared}
        assert not judged(steady(**rest)).finds_the_leak


@pytest.mark.parametrize(
    "seen", [Seen("burst", 1.0), Seen("burst", 1.0, 2.0), Seen("burst", 1.0, None, 2.0)]
)
def test_a_fault_that_nobody_saw_begin_and_end_fails(seen: Seen) -> None:
    assert "burst not seen" in judged(steady(), [seen]).to_text()


def test_loss_and_a_run_without_anything_fail() -> None:
    lost = Report(attempted=1, acknowledged=1)
    lost.add("lost", ("a", ""), "gone", None)
    done = [Seen("burst", 1.0, 2.0, 3.0)]
    assert not Verdict.of(steady(), done, lost, run_s=RUN_S, begun_s=0).is_good
    assert not Verdict.of(steady(), [], CLEAN, run_s=RUN_S, begun_s=0).is_good
    assert not Verdict.of([], done, CLEAN, run_s=RUN_S, begun_s=0).is_good


def test_samples_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "samples.csv"
    samples = steady()[:50]
    write_samples(path, samples[:20])
    write_samples(path, samples[20:])
    found = read_samples(path)
    assert [one[:4] for one in found] == [one[:4] for one in samples]
    assert [one.value for one in found] == pytest.approx([one.value for one in samples], rel=1e-5)
    path.write_text("something,else\n")
    with pytest.raises(ValueError, match="no heading"):
        read_samples(path)


@pytest.mark.parametrize("minutes", [12, 30, 120])
def test_each_fault_comes_in_the_first_third_and_a_seed_gives_the_same(minutes: int) -> None:
    others = OTHERS + OF_POSTGRES
    slots = plan_slots(RENEWING, others, run_s=minutes * 60, seed=1)
    assert slots == plan_slots(RENEWING, others, run_s=minutes * 60, seed=1)
    assert slots != plan_slots(RENEWING, others, run_s=minutes * 60, seed=2)
    early = [one.fault for one in slots if one.at_s + one.length_s <= minutes * 20 + 1e-6]
    assert set(early) == set(FAULTS) == {*RENEWING, *others}
    assert {one.fault for one in slots[: len(RENEWING)]} == set(RENEWING)
    assert slots[-1].at_s + slots[-1].length_s <= minutes * 60
    assert {one.fault for one in slots[-len(RENEWING) :]} == set(RENEWING)
    renewed_s = [one.at_s for one in slots if one.fault in RENEWING]
    longest_s = max(later - sooner for sooner, later in pairwise(renewed_s))
    assert longest_s >= minutes * 60 / 2, "processes get old"


def test_a_page_has_all_plots_and_tells_faults_that_were_not_seen() -> None:
    text = page(judged(steady(), [Seen("burst", 100.0, trouble="<waited>")]), "Soak")
    assert text.count("<svg") == 6
    assert "burst &lt;waited&gt;" in text and "NOT GOOD" in text
    assert "://" not in text.replace("http://www.w3.org", "")


def test_a_message_to_several_is_one_message_by_each_of_its_recipients() -> None:
    one, several = compose("a-1", 3), compose("a-1", 3, several=3)
    assert {id_of(address) for address in (*one.recipients, *several.recipients)} == {"a-1"}
    assert named(one.recipients) == {}
    assert named(several.recipients[1:]) == {"recipients": ["a-1+2@cust.test", "a-1+3@cust.test"]}
    last = digest(several.sender, several.recipients[2], several.content)
    assert last == several.digest
    assert last != digest(several.sender, "a-2+3@cust.test", several.content)
