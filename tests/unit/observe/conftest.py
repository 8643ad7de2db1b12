"""Counting within the test's own process."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.observe.metrics import MetricsFile, RunFiles
from tests.logs import text_log


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """The state directory to read from."""
    return tmp_path


@pytest.fixture
def file(state_dir: Path) -> Iterator[MetricsFile]:
    """What this process counts, as one of a supervisor's."""
    files = RunFiles(state_dir)
    yield MetricsFile(files.directory, text_log(io.StringIO()))
    files.close()
