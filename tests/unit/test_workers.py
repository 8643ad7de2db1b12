"""Tests run by several processes are told as those of one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

CONFTEST = """
from tests.workers import Workers
def pytest_addoption(parser):
    parser.addoption("--workers", type=int)
def pytest_configure(config):
    config.pluginmanager.register(Workers(config.option.workers))
"""
GOOD = """
import atexit, os, pathlib, pytest
@pytest.fixture(scope="module")
def made():
    yield os.getpid()
    pathlib.Path(__file__ + ".ended").touch()
def test_a(made, tmp_path): assert made == os.getpid()
def test_b(made, tmp_path): print("not shown")
def test_c(made):
    atexit.register(pathlib.Path(__file__ + ".left").touch)
"""
FAILS = """
import sys
def test_fails():
    print("what it wrote"); print("and there", file=sys.stderr)
    assert 1 == 2
def test_after(): pass
"""
ENDS = """
import os, signal
def test_before(): pass
def test_ends(): os.kill(os.getpid(), signal.SIGKILL)
def test_never_runs(): pass
"""


def run(directory: Path, *arguments: str, **files: str) -> subprocess.CompletedProcess[str]:
    begun = begin(directory, *arguments, **files)
    stdout, stderr = begun.communicate()
    return subprocess.CompletedProcess(begun.args, begun.returncode, stdout, stderr)


def begin(directory: Path, *arguments: str, **files: str) -> subprocess.Popen[str]:
    (directory / "conftest.py").write_text(CONFTEST)
    (directory / "pytest.ini").write_text("[pytest]\n")
    for name, text in files.items():
        (directory / f"test_{name}.py").write_text(text)
    root = str(Path(__file__).parents[2])
    plain = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "--workers", "3", "-p", "no:cacheprovider", *arguments],
        cwd=directory,
        env={**plain, "PYTHONPATH": root, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_all_are_run_and_failures_shown(tmp_path: Path) -> None:
    done = run(tmp_path, one=GOOD, two=GOOD, three=GOOD, four=GOOD, fails=FAILS)
    assert done.returncode == 1, done.stdout
    assert "1 failed, 13 passed" in done.stdout
    assert re.search(r"Captured stdout call -+\nwhat it wrote\n", done.stdout)
    assert re.search(r"Captured stderr call -+\nand there\n", done.stdout)
    assert "assert 1 == 2" in done.stdout and "not shown" not in done.stdout
    for name in ("one", "two", "three", "four"):
        assert (tmp_path / f"test_{name}.py.ended").exists(), "its fixtures ended"
        assert (tmp_path / f"test_{name}.py.left").exists(), "what a process does at its exit"


def test_a_worker_that_dies_fails_its_test(tmp_path: Path) -> None:
    done = run(tmp_path, ends=ENDS, one=GOOD, two=GOOD)
    assert done.returncode == 1, done.stdout
    assert "1 failed, 7 passed" in done.stdout
    assert "FAILED test_ends.py::test_ends" in done.stdout and "ended (-9)" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "text", "code"),
    [
        (["-x"], FAILS, 1),
        ([], "import nothing_of_that_name", 2),
        (["-k", "nothing"], GOOD, 5),
        ([], "def test_interrupted():\n    raise KeyboardInterrupt\n", 1),
    ],
)
def test_what_ends_early(tmp_path: Path, arguments: list[str], text: str, code: int) -> None:
    done = run(tmp_path, *arguments, odd=text)
    assert done.returncode == code, done.stdout + done.stderr


WAITS = """
import os, pathlib, time
def test_waits():
    pathlib.Path(__file__).with_suffix(f".{os.getpid()}").touch()
    while True: time.sleep(60)
"""


def test_no_worker_stays_when_what_shows_results_is_killed(tmp_path: Path) -> None:
    begun = begin(tmp_path, one=WAITS, two=WAITS)
    pids: list[int] = []
    while len(pids) < 2:
        assert begun.poll() is None
        pids = [int(path.suffix[1:]) for path in tmp_path.glob("test_*.[0-9]*")]
        time.sleep(0.02)
    begun.terminate()
    begun.communicate()
    for pid in pids:
        while Path(f"/proc/{pid}").exists() and "Z" not in state_of(pid):
            time.sleep(0.02)


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"
