"""In pytest: tells which test calls which function, and puts a changed module in its place."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
import threading
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import pytest

from bench.mutating.points import Mutant


class Calls:
    """Notes for each test the functions of relaygw that it calls, `PATH:FIRST_LINE`; its time.

    Of a test that fails, and so tells nothing, only that it does.
    """

    def __init__(self, root: Path) -> None:
        self.by_test: dict[str, set[str]] = defaultdict(set)
        self.seconds: dict[str, float] = defaultdict(float)
        self.failed: set[str] = set()
        self._root = f"{root}/"
        self._names: dict[CodeType, str | None] = {}
        self._now: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Watch a test with its fixtures, in all threads."""
        self._now = self.by_test[item.nodeid]
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        try:
            return (yield)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self.failed.add(report.nodeid)

    def save(self, path: Path) -> None:
        """Write all to a file, for the process that loads it."""
        called = {test: sorted(called) for test, called in self.by_test.items()}
        path.write_text(json.dumps([called, self.seconds, sorted(self.failed)]))

    def load(self, path: Path) -> None:
        """Add what was saved; of tests that fail no more than their names."""
        called, seconds, failed = json.loads(path.read_text())
        self.failed |= set(failed)
        self.by_test |= {one: set(its) for one, its in called.items() if one not in failed}
        self.seconds |= {one: its for one, its in seconds.items() if one not in failed}

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            code = frame.f_code
            if code not in self._names:
                path = code.co_filename
                is_ours = path.startswith(f"{self._root}relaygw/")
                name = f"{path.removeprefix(self._root)}:{code.co_firstlineno}"
                self._names[code] = name if is_ours else None
            if (name_or_none := self._names[code]) is not None:
                self._now.add(name_or_none)


class Started:
    """Keeps the name of the test that was begun last, in a file: its process may be killed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._path.write_text(nodeid)

    def test(self) -> str:
        """Return the test; empty: none began."""
        return self._path.read_text() if self._path.exists() else ""


class Changed(importlib.abc.MetaPathFinder):
    """Finds one module by its changed source; all others are found as ever."""

    def __init__(self, root: Path, mutant: Mutant) -> None:
        self._path = root / mutant.path
        self._mutant = mutant
        self._module = mutant.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return where the module comes from."""
        if name != self._module:
            return None
        loader = _Loader(name, str(self._path), self._mutant)
        return importlib.util.spec_from_file_location(name, self._path, loader=loader)


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, mutant: Mutant) -> None:
        super().__init__(name, path)
        self._mutant = mutant

    def get_data(self, path: str) -> bytes:
        return self._mutant.apply(super().get_data(path))

    def path_stats(self, path: str) -> Mapping[str, float]:
        """There is no compiled file to go by, nor is one written."""
        raise OSError
