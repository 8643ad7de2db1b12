"""Metrics that cannot be written stop nothing: the log says why."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

from relaygw.observe.metrics import can_count, open_run_files
from tests.logs import text_log

_ON_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from relaygw.observe.maillog import open_log
from relaygw.observe.metrics import can_count
from relaygw.settings.model import Log
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
log = open_log(Log(target="file:/dev/stdout"), hostname="gw.test")
print(can_count(Path(sys.argv[1]), log))
"""


def test_a_process_without_room_for_its_files_counts_nothing_and_says_so(tmp_path: Path) -> None:
    # a limit of the process on the size of files fails where a full disk does
    done = subprocess.run(
        [sys.executable, "-c", _ON_A_FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    line, counts = done.stdout.splitlines()
    assert line.endswith(f"warning: this process has no metrics, {tmp_path}: File too large")
    assert counts == "False"
    assert list(tmp_path.iterdir()) == []


def test_room_is_taken_before_anything_is_counted(tmp_path: Path) -> None:
    """A page of a mapped file without a block on the disk ends the process that writes it."""
    script = (
        "import sys; from pathlib import Path;"
        "from relaygw.observe.metrics import count_in; count_in(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    files = list(tmp_path.iterdir())
    assert len(files) == 4
    for file in files:
        assert file.stat().st_blocks * 512 >= file.stat().st_size >= 2**16


def test_a_supervisor_without_a_directory_goes_on(tmp_path: Path) -> None:
    (tmp_path / "metrics").write_text("in the way")
    output = io.StringIO()
    log = text_log(output)
    assert open_run_files(tmp_path, log) is None
    assert output.getvalue().endswith(f"warning: no metrics of mail, {tmp_path}: File exists\n")
    assert not can_count(None, log)
