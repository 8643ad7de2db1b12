"""The fuzzer of sessions: none breaks a rule, each is the same again, and planted bugs are found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.fuzzing import coverage
from tests.campaign import times

pytestmark = pytest.mark.timeout(3600)  # many are slow where all processors are in use
FUZZ = Path(__file__).parents[3] / "bench" / "fuzz"


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, FUZZ, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "random"},
        check=False,
    )


@pytest.mark.campaign
def test_no_session_breaks_a_rule() -> None:
    done = fuzz("--sessions", str(times(300, campaign=50_000)))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_session_is_the_same_again_and_one_that_breaks_a_rule_says_which() -> None:
    first, again = (fuzz("0", "--bug", "dots-kept") for _ in range(2))
    assert first.returncode == 1
    assert "C: b'" in first.stdout and "S: b'220 " in first.stdout
    assert "\nBROKEN " in first.stdout and "the content is" in first.stdout
    assert first.stdout == again.stdout


@pytest.mark.campaign
def test_each_planted_bug_is_found() -> None:
    done = fuzz("--zoo", "--sessions", str(times(2000, campaign=20_000)))
    assert done.returncode == 0, done.stdout + done.stderr


def test_fixed_inputs_crash_no_parser() -> None:
    done = fuzz("--targets")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "postfix: 12 inputs, no crash" in done.stdout


def test_a_target_without_atheris_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(SystemExit, match=r"pip install 'relaygw\[fuzz\]'"):
        coverage.watch()
