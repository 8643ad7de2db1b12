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
from relaygw.observe.metrics import count_in
directory, expression = sys.argv[1:]
count_in(Path(directory))
from prometheus_client import Counter, Gauge, Histogram
total = Counter("things_total", "Things.", ["kind"], registry=None)
took = Histogram("took_seconds", "Time.", buckets=(1, 5), registry=None)
now = Gauge("now", "Now.", multiprocess_mode="livesum", registry=None)
last = Gauge("last_seconds", "Last.", multiprocess_mode="max", registry=None)
exec(expression)
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
