"""The verifier of bench/kill fails on doctored files and passes the honest ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.killing.doubts import Doubt
from bench.killing.evidence import CLIENTS, DATABASE, KILLS, SINK, Kill, read_evidence
from bench.killing.program import main
from bench.killing.verifier import Findings, verify
from relaygw.store.store import open_store
from tests.builders import accepted
from tests.queues import make_queue

KILLED_NS = 1000


class Files:
    """A campaign of one kill of the worker: `a` delivered, `b` in doubt, `c` queued.

    `b` was read by the sink before the kill, not answered, and arrived again after it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clients: list[str] = []
        self.sink = ["100 open 1", "1100 open 2"]
        self.kills = [Kill("delivery", KILLED_NS, 50.0, open_ids=("b", "c"), begun_ids=("b",))]
        self.queued = ["c"]
        for message_id in ("a", "b", "c"):
            self.send(message_id)
        self.take("a", 200, connection=1)
        self.sink.append("230 answered 1 a")
        self.take("b", 990, connection=1)
        self.sink.append("1001 closed 1")
        self.take("b", 1200, connection=2)
        self.sink.append("1230 answered 2 b")

    def send(self, message_id: str, *, end: str = "acknowledged QUEUEID") -> None:
        self.clients += [
            f"110 {message_id} mail",
            f"120 {message_id} content {message_id}-whole",
            f"130 {message_id} sent-dot",
            f"140 {message_id} {end}",
        ]

    def take(self, message_id: str, at_ns: int, *, connection: int, mark: str = "whole") -> None:
        self.sink.append(f"{at_ns} taken {connection} {message_id} {message_id}-{mark}")

    def write(self) -> Path:
        for name, lines in ((CLIENTS, self.clients), (SINK, self.sink)):
            ordered = sorted(lines, key=lambda line: int(line.split()[0]))
            (self.directory / name).write_text("".join(f"{line}\n" for line in ordered))
        (self.directory / KILLS).write_text("".join(kill.to_json() for kill in self.kills))
        url = f"sqlite:///{self.directory / DATABASE}"
        make_queue(url)
        store = open_store(url)
        store.intake.accept_batch([accepted(f"{name}@cust.test") for name in self.queued])
        store.close()
        return self.directory

    def verdict(self) -> Findings:
        return verify(read_evidence(self.write()))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_honest_files_pass(files: Files) -> None:
    findings = files.verdict()
    assert findings.is_passed
    assert (findings.sent, findings.acknowledged, findings.delivered) == (3, 3, 2)
    (blow,) = findings.blows
    assert blow.doubts == {"b": Doubt.UNANSWERED}
    assert blow.extras == {Doubt.UNANSWERED: 1}


def test_a_lost_message_is_found(files: Files) -> None:
    files.queued = []
    findings = files.verdict()
    assert findings.lost == ["c"]
    assert not findings.is_passed


def test_an_unacknowledged_message_may_be_gone(files: Files) -> None:
    files.send("d", end="broken sent-dot")
    assert files.verdict().is_passed


def test_a_delivered_message_need_not_be_acknowledged(files: Files) -> None:
    files.send("d", end="broken sent-dot")
    files.take("d", 1300, connection=2)
    findings = files.verdict()
    assert findings.is_passed
    assert findings.unacknowledged == 1


def test_an_invented_message_is_found(files: Files) -> None:
    files.take("x", 1300, connection=2)
    findings = files.verdict()
    assert [take.message_id for take in findings.invented] == ["x"]
    assert not findings.is_passed


def test_a_message_whose_content_was_never_sent_is_invented(files: Files) -> None:
    files.clients.append("110 x mail")
    files.take("x", 1300, connection=2)
    assert [take.message_id for take in files.verdict().invented] == ["x"]


def test_a_damaged_message_is_found(files: Files) -> None:
    files.send("d")
    files.take("d", 1300, connection=2, mark="torn")
    findings = files.verdict()
    assert [take.message_id for take in findings.damaged] == ["d"]
    assert not findings.is_passed


def test_a_third_arrival_is_one_too_many(files: Files) -> None:
    files.sink.append("1250 open 3")
    files.take("b", 1300, connection=3)
    findings = files.verdict()
    assert [take.taken_ns for take in findings.beyond] == [1300]
    assert not findings.is_passed


def test_a_recorded_message_must_not_arrive_again(files: Files) -> None:
    files.take("a", 1300, connection=2)
    findings = files.verdict()
    assert [take.message_id for take in findings.beyond] == ["a"]
    assert findings.extras == 2


def test_a_worker_that_lives_must_not_send_twice(files: Files) -> None:
    files.send("d")
    files.take("d", 1300, connection=2)
    files.take("d", 1400, connection=2)
    assert [take.taken_ns for take in files.verdict().beyond] == [1400]


def test_the_death_of_the_front_explains_no_second_arrival(files: Files) -> None:
    files.kills = [Kill("front", KILLED_NS, 50.0)]
    assert [take.message_id for take in files.verdict().beyond] == ["b"]


def test_the_exit_code_tells(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    directory = str(files.write())
    assert main(["--verify", directory]) == 0
    assert "PASSED" in capsys.readouterr().out
    with (files.directory / CLIENTS).open("a") as clients:
        clients.write("150 e content e-whole\n160 e acknowledged QUEUEID\n")
    assert main(["--verify", directory]) == 1
    output = capsys.readouterr().out
    assert "lost: 1 (e)" in output
    assert max(map(len, output.partition("\n\n")[2].splitlines())) <= 80
