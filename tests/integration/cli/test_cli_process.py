"""What a shell sees: exit codes, pipes, streams."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from relaygw.mail.state import DeliveryState
from tests.integration.cli.conftest import Desk


def test_a_reader_that_goes_away_ends_a_list_quietly(desk: Desk) -> None:
    for _ in range(1000):  # more rows than a pipe holds
        desk.add()
    process = desk.popen("queue", "list", stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"QUEUE ID")
    process.stdout.close()
    _, stderr = process.communicate()
    assert (process.returncode, stderr) == (141, b"")


def test_a_reader_that_goes_away_before_the_change_prevents_it(desk: Desk) -> None:
    ids = [desk.add() for _ in range(3)]
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = desk.popen("queue", "delete", "--all", "--yes", stdout=write_end)
    os.close(write_end)
    _, stderr = process.communicate()
    assert stderr == b""
    assert process.returncode == 141
    assert {state for one in ids for state in desk.states(one)} == {DeliveryState.INCOMING}


def test_content_that_cannot_be_written_is_an_error(desk: Desk) -> None:
    queue_id = desk.add()
    with Path("/dev/full").open("wb") as full:
        process = desk.popen("queue", "show", "--raw", queue_id, stdout=full)
        _, stderr = process.communicate()
    assert process.returncode == 74
    assert stderr.count(b"\n") == 1
    assert b"No space left" in stderr


def test_a_terminal_of_another_encoding_gets_question_marks(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "koi8-r")
    desk.add(subject="Grüße und noch viel mehr Text")
    process = desk.popen("queue", "list", stdout=subprocess.PIPE)
    stdout, stderr = process.communicate()
    assert (process.returncode, stderr) == (0, b"")
    assert b"Gr??e" in stdout


def test_output_has_no_colour_with_or_without_no_color(desk: Desk) -> None:
    desk.add()
    for words in (("queue", "list"), ("status",), ("queue", "delete")):
        process = desk.popen(*words, stdout=subprocess.PIPE)
        stdout, stderr = process.communicate()
        assert b"\x1b" not in stdout + stderr


def test_a_broken_configuration_is_78_without_a_traceback(desk: Desk) -> None:
    desk.config.write_text("mode: fast\nqueu: 1\n")
    process = desk.popen("serve")
    _, stderr = process.communicate()
    assert process.returncode == 78
    lines = stderr.decode().splitlines()
    assert len(lines) == 2
    assert all(line.startswith("relaygw: relaygw.yaml:") for line in lines)


def test_debug_adds_the_traceback(desk: Desk) -> None:
    process = desk.popen("--debug", "queue", "list", "--config", "/nonexistent.yaml")
    _, stderr = process.communicate()
    assert process.returncode == 78
    assert b"Traceback" in stderr
    assert stderr.splitlines()[-1].startswith(b"relaygw: /nonexistent.yaml: cannot be read")


def test_a_queue_that_is_no_database_is_told_without_a_traceback(
    desk: Desk, tmp_path: Path
) -> None:
    (tmp_path / "state" / "bad.db").write_bytes(b"no database" * 99)
    desk.config.write_text(desk.config.read_text().replace("queue.db", "bad.db"))
    process = desk.popen("queue", "list")
    _, stderr = process.communicate()
    assert process.returncode == os.EX_DATAERR
    assert b"Traceback" not in stderr
