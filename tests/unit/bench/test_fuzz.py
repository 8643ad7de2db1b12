"""The fuzzer: no session breaks a rule, one is the same again, planted bugs are found."""

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
def test_sessions_planted_bugs_and_fixed_inputs() -> None:
    """In one process: to start it takes longer than half of this."""
    count = times(300, campaign=50_000)
    done = fuzz("--short", "--sessions", str(count))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} sessions, 0 broken" in done.stdout
    assert "\nC: b'" in done.stdout and "\nS: b'250" in done.stdout
    assert "\nBROKEN " in done.stdout and "the content is" in done.stdout
    assert "the same again" in done.stdout
    assert "postfix: 12 inputs, no crash" in done.stdout


def test_a_target_without_atheris_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(SystemExit, match=r"pip --python /\S+ install atheris$"):
        coverage.watch()
