"""A package that the configuration takes and that is not there is named, with the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = f"run: python3 -m pip --python {sys.executable} install 'psycopg[binary]'"


@pytest.mark.parametrize("words", [["db", "upgrade"], ["queue", "list"], ["check"], ["serve"]])
def test_a_queue_in_postgres_without_its_driver(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError('no pq wrapper available')")
    config = tmp_path / "relaygw.yaml"
    config.write_text("mode: sandbox\nqueue: {url: 'postgresql://u@127.0.0.1:1/x'}\n")
    done = subprocess.run(
        [sys.executable, "-m", "relaygw", "--config", config, *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == (69 if words == ["serve"] else 78)
    assert f"the package psycopg[binary] is not installed; {COMMAND}" in done.stderr + done.stdout
    assert ("error: queue.url: " in done.stderr) is (words == ["check"])
    assert "internal error" not in done.stderr


WITHOUT_JINJA2 = """
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "jinja2":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Finder())
"""


def test_what_only_the_first_page_needs_is_missed_before(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_JINJA2)
    config = tmp_path / "relaygw.yaml"
    config.write_text(
        f"mode: sandbox\nqueue: {{url: 'sqlite:///{tmp_path}/queue.db'}}\n"
        "listeners: [{bind: '127.0.0.1:0'}]\nweb: {bind: '127.0.0.1:0'}\n"
    )
    program = [sys.executable, "-m", "relaygw", "--config", str(config)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    said = "the package jinja2 is not installed; run: python3 -m pip"
    checked = subprocess.run(
        [*program, "check"], env=environ, capture_output=True, text=True, timeout=90, check=False
    )
    assert (checked.returncode, f"error: {said}" in checked.stderr) == (78, True)
    with subprocess.Popen(
        [*program, "serve"], env=environ, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as gateway:
        assert gateway.stderr is not None
        line = gateway.stderr.readline().decode()
        gateway.terminate()
    assert f"warning: {said}" in line, "and mail goes on"
    assert gateway.returncode in (0, -signal.SIGTERM)
