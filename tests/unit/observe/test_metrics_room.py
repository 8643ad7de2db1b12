"""Metrics that cannot be written stop nothing: the log says why, once, until they are written."""

from __future__ import annotations

import io
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.observe.metrics import MetricsFile, open_metrics, open_run_files
from tests.logs import text_log


def test_a_file_that_cannot_be_written_is_told_once_and_written_later(tmp_path: Path) -> None:
    output = io.StringIO()
    directory = tmp_path / "gone"
    file = MetricsFile(directory, text_log(output))
    total = file.tally("things_total", "Things.")
    for _ in range(2):
        total.add()
        file.write()
    (line,) = output.getvalue().splitlines()
    assert "warning: metrics are not written" in line
    assert line.endswith("No such file or directory")
    directory.mkdir()
    file.write()
    (written,) = directory.iterdir()
    assert "[[],[2.0]]" in written.read_text()


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files of this process fail beyond 64 KiB, as on a full disk; SIGXFSZ is ignored by Python."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_keeps_what_was_written(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path, text_log(io.StringIO()))
    file.tally("things_total", "Things.", from_zero=[()])
    file.write()
    before = [(path, path.read_bytes()) for path in tmp_path.iterdir()]
    file.tally("x" * 70_000, "Beyond the limit.")
    file.write()
    assert [(path, path.read_bytes()) for path in tmp_path.iterdir()] == before


def test_a_supervisor_without_a_directory_goes_on(tmp_path: Path) -> None:
    (tmp_path / "metrics").write_text("in the way")
    output = io.StringIO()
    log = text_log(output)
    assert open_run_files(tmp_path, log) is None
    assert output.getvalue().endswith(f"warning: no metrics of mail, {tmp_path}: File exists\n")
    assert open_metrics(None, log) is None
