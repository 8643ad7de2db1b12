"""How long each test file takes: the longest begin first, so that no worker is left with one.

`make durations` measures anew and writes `durations.json`, seconds a file.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).with_name("durations.json")
_UNKNOWN_S = 5.0  # of a new file


def _known() -> dict[str, float]:
    seconds: dict[str, float] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return seconds


def _file_of(node_id: str) -> str:
    return node_id.partition("::")[0]


def longest_first(items: list[pytest.Item]) -> None:
    """Order tests by the seconds of their file; within a file they stay as they stand."""
    known = _known()

    def key(item: pytest.Item) -> tuple[float, str]:
        file = _file_of(item.nodeid)
        return -known.get(file, _UNKNOWN_S), file

    items.sort(key=key)


class Recorder:
    """Adds up what the tests of each file took, and writes it down in the end."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[_file_of(report.nodeid)] += report.duration

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        kept = {
            file: seconds
            for file, seconds in _known().items()
            if (session.config.rootpath / file).exists()
        }
        seconds: dict[str, Any] = kept | {f: round(s, 1) for f, s in self._seconds.items()}
        ordered = dict(sorted(seconds.items(), key=lambda one: (-one[1], one[0])))
        FILE.write_text(json.dumps(ordered, indent=1) + "\n")
