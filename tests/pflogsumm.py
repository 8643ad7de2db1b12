"""The real pflogsumm over a log of ours."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

_SCALE = {"": 1, "k": 1024, "m": 1024**2}
_DEFERRED = re.compile(r"^\s*(\d+)\s+deferred\s+\((\d+)\s+deferrals\)$")
_TOTAL = re.compile(r"^\s*(\d+)([km]?)\s+([a-z][a-z /]*[a-z])(?:\s+\(\d+%\))?$")


def totals_of(log: Path, *, name: str = "relaygw") -> dict[str, int]:
    """Return the grand totals; `deferrals` are tries, `deferred` messages."""
    done = subprocess.run(
        ["pflogsumm", f"--syslog-name={name}", str(log)], capture_output=True, text=True, check=True
    )
    totals: dict[str, int] = {}
    head = done.stdout.partition("Per-Hour")[0].partition("Per-Day")[0]
    for line in head.splitlines():
        if match := _DEFERRED.match(line):
            totals |= {"deferred": int(match[1]), "deferrals": int(match[2])}
        elif match := _TOTAL.match(line):
            totals.setdefault(match[3], int(match[1]) * _SCALE[match[2]])
    return totals
