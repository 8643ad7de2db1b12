"""Counting within the test's own process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import values

from relaygw.observe.metrics import RunFiles, count_in


@pytest.fixture
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let this process count as one of a supervisor's; give the state directory to read from."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    files = RunFiles(tmp_path)
    count_in(files.directory)
    yield tmp_path
    values.ValueClass.close_all_files()
    files.close()
