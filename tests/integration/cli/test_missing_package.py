"""A package that the configuration takes and that is not there is named, with the command."""

from __future__ import annotations

import os
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
