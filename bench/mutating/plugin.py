"""In pytest: tells which test calls which function, and puts a changed module in its place."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
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
    """Notes for each test the functions of some files that it calls: `PATH:FIRST_LINE`."""

    def __init__(self, root: Path) -> None:
        self.by_test: dict[str, set[str]] = defaultdict(set)
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
