"""A process of its own that counts for as long as the test wants, as a role does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_COUNT = """
import sys
from pathlib import Path
from relaygw.observe.maillog import open_log
from relaygw.observe.metrics import MetricsFile
from relaygw.observe.tallies import HistogramRow, TallyKind
from relaygw.settings.model import Log
directory, expression = sys.argv[1:]
file = MetricsFile(Path(directory), open_log(Log(), hostname="gw.test"))
total = file.tally("things_total", "Things.", "kind")
took = file.tally("took_seconds", "Time.", kind=TallyKind.HISTOGRAM, bounds=(1.0, 5.0))
took = HistogramRow(took)
now = file.tally("now", "Now.", kind=TallyKind.LIVE)
last = file.tally("last_seconds", "Last.", kind=TallyKind.LATEST)
exec(expression)
file.write()
print("counted", flush=True)
sys.stdin.read()
"""


@contextmanager
def counting(directory: Path, expression: str) -> Iterator[int]:
    """Run `expression` over `total`, `took`, `now` and `last` in a process; give its pid."""
    process = subprocess.Popen(
        [sys.executable, "-c", _COUNT, str(directory), expression],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"counted\n"
        yield process.pid
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()
