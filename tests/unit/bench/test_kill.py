"""bench/kill tells what each kill met, finds the faults that are planted, and reads any queue."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench.checking.checker import check_facts
from bench.checking.facts import Connection, Delivery, Facts, Kill, read_facts
from bench.checking.report import Report
from bench.cutting.cuts import Cut, Kept
from bench.cutting.load import Plan
from bench.cutting.table import render
from bench.cutting.verdict import Verdict
from bench.history import INFO, OK, Event, read_history, write_history
from bench.killing.blows import Doubt, find_blows
from bench.killing.campaign import HISTORY
from bench.killing.program import main
from bench.killing.queue_view import Spool
from bench.rig.mta import Mta, load_adapter

CLEAN = Path(__file__).parent / "histories" / "clean.jsonl"


def test_what_was_in_doubt_at_a_kill_and_came_again_is_laid_to_it() -> None:
    facts = read_facts(read_history(CLEAN))
    blow, after = find_blows(facts, check_facts(facts))
    assert blow.doubts == {"b": Doubt.UNANSWERED}
    assert blow.extras == {Doubt.UNANSWERED: 1}
    assert blow.slots() == {Doubt.UNANSWERED: 1}
    assert (blow.acknowledged, after.acknowledged) == (3, 0)


@pytest.mark.parametrize(
    ("dot_ns", "answered_ns", "doubt"),
    [(900, 950, Doubt.UNRECORDED), (900, 1500, Doubt.UNANSWERED), (1500, 1600, Doubt.UNREAD)],
)
def test_how_far_a_message_had_come(dot_ns: int, answered_ns: int, doubt: Doubt) -> None:
    delivery = Delivery(Connection("main/1", 100), 800, "a", dot_ns=dot_ns)
    delivery.ended_ns, delivery.end = answered_ns, OK
    facts = Facts(deliveries=[delivery], kills=[Kill(1000, "delivery", open=frozenset("a"))])
    assert find_blows(facts, Report())[0].doubts == {"a": doubt}


def test_a_history_that_was_kept_is_judged_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(CLEAN, tmp_path / HISTORY)
    assert main(["--verify", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert output.endswith("CLEAN\n")
    assert max(map(len, output.partition("\n\n")[2].splitlines())) <= 80


@pytest.mark.parametrize(
    ("sample", "control", "code", "verdict"),
    [
        ("lost", "careless", 0, "PASSED: the control loses (lost 1)"),
        ("unrecorded", "forgetful", 0, "PASSED: the control loses (unrecorded 1)"),
        ("unrecorded", "careless", 1, "FAILED: the control loses nothing"),
        ("clean", "careless", 1, "FAILED: the control loses nothing"),
    ],
)
def test_a_control_passes_when_its_fault_is_found(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    sample: str,
    control: str,
    code: int,
    verdict: str,
) -> None:
    planted = Event(1, "campaign", INFO, "campaign", {"control": control})
    events = [planted, *read_history(CLEAN.with_stem(sample))]
    write_history(tmp_path / HISTORY, events)
    assert main(["--verify", str(tmp_path)]) == code
    assert capsys.readouterr().out.splitlines()[-1] == verdict


def test_what_power_cuts_show_fits_into_a_terminal() -> None:
    report = Report(attempted=1, acknowledged=1)
    report.add("lost", ("a" * 30, "x" * 40), "acknowledged; neither taken nor queued", 1)
    verdict = Verdict(Cut(123_456, 1, Kept.PAGES, 0.5), report, ["some problem " * 20], 0)
    plan = Plan(database="sqlite", is_control=True, messages=1)
    lines = render(plan, [verdict]).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1] == "PASSED: the control loses (lost 1)"


def test_a_spool_is_read_by_the_ids_in_its_files(tmp_path: Path) -> None:
    (tmp_path / "active").mkdir()
    (tmp_path / "active" / "A1").write_bytes(b"\0T\x12N\x0cX-Id: 3-4f\0N\x09Subject: x")
    (tmp_path / "pid").write_bytes(b"123\n")
    assert Spool(tmp_path).open_ids() == ["3-4f"]


def test_an_adapter_is_a_class_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "other.py"
    path.write_text(
        "from bench.rig.mta import Mta\n"
        "class Other(Mta):\n    name = 'Other'\n"
        "    def prepare(self): pass\n    def command(self): return ['other']\n"
    )
    assert issubclass(load_adapter(f"{path}:Other"), Mta)
    for wrong in (f"{path}:Nobody", f"{tmp_path}/none.py:Other", "postfixx"):
        with pytest.raises(ValueError, match=r"adapter|no subclass"):
            load_adapter(wrong)
