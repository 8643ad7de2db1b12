"""The simulation: seeds without a finding, each the same when it runs again, and planted bugs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaign import times

pytestmark = pytest.mark.timeout(3600)  # many are slow where all processors are in use
SIMULATE = Path(__file__).parents[3] / "bench" / "simulate"


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SIMULATE, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "random"},
        check=False,
    )


@pytest.mark.campaign
def test_no_seed_breaks_a_promise() -> None:
    done = simulate("--seeds", str(times(60, campaign=20_000)))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_seed_is_the_same_again(tmp_path: Path) -> None:
    first = simulate("7", "--history", str(tmp_path / "first"))
    page = tmp_path / "run.html"
    again = simulate("7", "--history", str(tmp_path / "again"), "--picture", str(page))
    assert first.returncode == 0, first.stdout + first.stderr
    assert "bench/check: nothing is wrong" in first.stdout
    assert first.stdout == again.stdout
    assert (tmp_path / "first").read_bytes() == (tmp_path / "again").read_bytes()
    assert "<svg" in page.read_text("utf-8")


@pytest.mark.campaign
def test_each_planted_bug_is_found() -> None:
    """By the seed that is noted for it, or by a few more: a change of the product moves them."""
    done = simulate("--zoo", "--seeds", str(times(1000, campaign=10_000)))
    assert done.returncode == 0, done.stdout + done.stderr
