"""The simulation: seeds without a finding, each the same when it runs again, and planted bugs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.campaign import times

SIMULATE = Path(__file__).parents[3] / "bench" / "simulate"


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SIMULATE, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "random"},
        check=False,
    )


def test_no_seed_breaks_a_promise() -> None:
    done = simulate("--seeds", str(times(200, campaign=20_000)))
    assert done.returncode == 0, done.stdout


def test_a_seed_is_the_same_again() -> None:
    first, again = simulate("7"), simulate("7")
    assert "digest" in first.stdout
    assert first.stdout == again.stdout
