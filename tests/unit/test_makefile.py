"""The Makefile: what the caller's shell exports by chance changes nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def shown(*words: str, **environment: str) -> str:
    """Return what make would do."""
    return subprocess.run(
        ["make", "--dry-run", "--always-make", *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_an_exported_name_of_another_environment_is_not_used() -> None:
    assert "/elsewhere" not in shown("run", VENV="/elsewhere")
    assert "/elsewhere/bin/relaygw serve" in shown("run", "VENV=/elsewhere")
