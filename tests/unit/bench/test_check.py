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


SENT = '{"time":1,"process":"c","type":"invoke","f":"send","value":{"message":"a"}}'
HEARD = SENT.replace("invoke", "ok").replace(":1,", ":2,")
TAKEN = SENT.replace("invoke", "info").replace('"send"', '"dot"').replace(":1,", ":3,")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("", "no JSON"),
        ("[" * 100_000, "nested too deep"),
        ("[]", "an object of time"),
        (SENT.replace("send", "sned"), "its f is 'sned'"),
        (SENT.replace('"send"', "[]"), "its f is []"),
        (SENT.replace(":1,", ":true,"), "its time"),
        (SENT.replace('"c"', "1"), "its process"),
        (SENT.replace('{"message":"a"}', "null"), "its value"),
        (SENT.replace('{"message":"a"}', "[]"), "its value"),
        (SENT.replace('{"message":"a"}', "{}"), "send without message"),
        (SENT.replace('"a"', '"a","recipients":null'), "the recipients of send"),
        (SENT.replace('"a"', '"a","recipients":"ab"'), "the recipients of send"),
        (SENT.replace("send", "fate"), "fate without state"),
        (SENT.replace("send", "fate").replace('"a"', '"a","state":"banana"'), "one of queued"),
        (SENT.replace("send", "lease").replace('"a"', '"a","until":"x"'), "the until of lease"),
        (SENT.replace("send", "limit").replace('"a"', '"a","window_s":0'), "the window_s of limit"),
    ],
)
def test_what_is_no_event_is_refused_by_its_line(
    line: str, fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(f"{SENT}\n{line}\n{HEARD}\n")
    assert main([str(path)]) == 2
    told = capsys.readouterr().err
    assert f"{path}:2: not an event of a history: " in told
    assert fault in told


@pytest.mark.parametrize("rest", [b'{"time":4,"proc', b"\0" * 40])
def test_a_history_whose_last_line_was_cut_off_is_judged_up_to_there(
    rest: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(f"{SENT}\n{HEARD}\n{TAKEN}\n".encode() + rest)
    assert main([str(path)]) == 0
    assert f"{path}:4: this last line was cut off" in capsys.readouterr().err


def test_where_nothing_was_acknowledged_nothing_is_proven(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(f"{SENT}\n{HEARD.replace('ok', 'fail')}\n")
    assert main([str(path)]) == 1
    assert "0 of 1 sent were acknowledged: NOTHING IS PROVEN" in capsys.readouterr().out
