"""The gateway where `relaygw-postfix` is not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from relaygw import __version__
from relaygw.cli import _BESIDE
from tests.sources import GATEWAY, ONLY_FROM
from tests.tables import each_of


@pytest.fixture
def gateway(tmp_path: Path) -> Path:
    """Where there is nothing of relaygw but the gateway."""
    (tmp_path / "relaygw").symlink_to(GATEWAY)
    return tmp_path


def run(gateway: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-c", ONLY_FROM, gateway, *words]
    where = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, env=where)


@each_of(
    "words",
    [
        ("import-postfix", "/etc/postfix", "--lint", "--config", "relaygw.yaml"),
        ("import-queue", "--help"),
        ("shadow", "run", "--maillog", "-"),
    ],
    ids=lambda words: words[0],
)
def test_its_commands_say_what_is_missing_and_how_to_get_it(
    gateway: Path, words: tuple[str, ...]
) -> None:
    done = run(gateway, *words)
    assert (done.returncode, done.stdout) == (os.EX_UNAVAILABLE, "")
    assert done.stderr == (
        f"relaygw: {words[0]} needs the package relaygw-postfix of relaygw {__version__}, which is "
        "not installed (No module named 'relaygw_postfix'); run in the source tree of that "
        f"version: python3 -m pip --python {sys.executable} install ./relaygw_postfix\n"
    )


def test_all_else_works(gateway: Path) -> None:
    done = run(gateway, "config", "show", HOME=str(gateway), XDG_STATE_HOME=str(gateway))
    assert (done.returncode, done.stderr) == (0, "")
    listed = run(gateway, "--help").stdout
    assert [name for name in _BESIDE if name not in listed] == []


def test_shells_complete_its_commands_without_a_traceback(gateway: Path) -> None:
    asked = {"COMP_WORDS": "relaygw import-postfix --", "COMP_CWORD": "2"}
    done = run(gateway, _RELAYGW_COMPLETE="bash_complete", **asked)
    assert (done.returncode, done.stderr) == (0, "")
