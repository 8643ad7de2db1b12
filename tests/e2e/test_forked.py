"""What is forked from a loaded image is as if it had been started."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.forked import RelaygwProcess, run_relaygw

KIND = re.compile(r":.*|^(?!pipe|socket).*")
SIGNALS = re.compile(r"^Sig(?:Blk|Ign|Cgt):\t(\w+)$", re.MULTILINE)
GLIBCS_OWN = 1 << 32  # which it takes with the first thread of a process, or of its image


def started(words: list[str], **how: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "relaygw", *words], check=False, **how)


@pytest.mark.parametrize(
    "words", [["--version"], ["queue", "--help"], ["nonsense"], ["check", "--config", "/x.yaml"]]
)
def test_says_and_returns_the_same(words: list[str]) -> None:
    forked, other = run_relaygw(words, capture_output=True), started(words, capture_output=True)
    assert (forked.returncode, forked.stdout, forked.stderr) == (
        *(other.returncode, other.stdout),
        other.stderr,
    )


@pytest.mark.parametrize(("number", "words"), [(1, ["--help"]), (0, ["users", "hash"])])
def test_a_closed_stream_is_closed(number: int, words: list[str]) -> None:
    how: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with RelaygwProcess(words, closed=[number], stdout=subprocess.DEVNULL, **how) as forked:
        _, said = forked.communicate()
    other = started(words, stdout=subprocess.DEVNULL, preexec_fn=lambda: os.close(number), **how)
    assert (forked.returncode, said) == (other.returncode, other.stderr)
    assert said


def test_reads_what_it_is_given(tmp_path: Path) -> None:
    done = run_relaygw(["users", "hash"], input="secret\n", capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("$argon2id$")


def test_has_its_own_session_signals_descriptors_and_surroundings(tmp_path: Path) -> None:
    words = ["--config", "relaygw.yaml", "serve", "--role", "front"]
    seen = []
    for name, command in (("forked", None), ("started", [sys.executable, "-m", "relaygw", *words])):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "relaygw.yaml").write_text(
            "{mode: sandbox, listeners: [{bind: '127.0.0.1:0'}], "
            f"maildrop: {{path: {directory}/maildrop}}}}"
        )
        how: dict[str, Any] = {
            "cwd": directory,
            "env": {**os.environ, "XDG_STATE_HOME": str(directory)},
            "stderr": subprocess.PIPE,
            "text": True,
            "start_new_session": True,
        }
        process = (
            RelaygwProcess(words, **how) if command is None else subprocess.Popen(command, **how)
        )
        with process:
            assert process.stderr is not None
            said = ""
            while "]: started: " not in said:
                line = process.stderr.readline()
                said += line
                assert line, said
            place = Path(f"/proc/{process.pid}")
            assert os.getsid(process.pid) == process.pid
            assert (place / "cwd").readlink() == directory
            files = Counter(KIND.sub("", one.readlink().name) for one in (place / "fd").iterdir())
            found = SIGNALS.findall((place / "status").read_text())
            masks = [int(one, 16) & ~GLIBCS_OWN for one in found]
            seen.append((files, masks))
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
            assert process.wait(30) == 0
    assert seen[0] == seen[1]


def test_a_killed_one_is_told_by_its_signal(tmp_path: Path) -> None:
    with RelaygwProcess(["users", "hash"], stdin=subprocess.PIPE) as process:
        assert process.poll() is None
        process.kill()
        assert process.wait(30) == -signal.SIGKILL
        assert process.poll() == -signal.SIGKILL
