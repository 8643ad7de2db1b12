"""The checker flags each kind of anomaly, by small histories, and passes the clean ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.checking.checker import check
from bench.checking.program import main
from bench.checking.report import KINDS
from bench.history import read_history

SAMPLES = sorted((Path(__file__).parent / "histories").glob("*.jsonl"))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_each_sample_is_judged_as_it_says(path: Path) -> None:
    found = check(read_history(path)).to_json()
    expected = found["about"]["expect"]
    wrong = {kind: count for kind, count in found["counts"].items() if count}
    assert wrong == expected.pop("counts"), found["anomalies"]
    assert found["clean"] == (not wrong) == path.stem.startswith("clean")
    assert {name: found[name] for name in expected} == expected


def test_each_kind_of_anomaly_has_a_sample() -> None:
    flagged = {kind for path in SAMPLES for kind in read_history(path)[0].value["expect"]["counts"]}
    assert flagged == set(KINDS)


def test_the_exit_code_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clean, lost = (str(path) for path in SAMPLES if path.stem in ("clean", "lost"))
    assert main([clean]) == 0
    assert "CLEAN" in capsys.readouterr().out.splitlines()
    assert main([lost, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["clean"] is False
    assert main([lost]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "NOT CLEAN: lost 1" in lines
    assert max(map(len, lines)) <= 80
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"time": 1}\n')
    assert main([str(broken)]) == 2
    assert f"{broken}:1: not an event" in capsys.readouterr().err
    broken.write_text("")
    assert main([str(broken)]) == 1, "nothing proves nothing"
