"""What is loaded late is looked for early."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw import late_packages
from relaygw.late_packages import PACKAGES, missing_parts

ROOT = Path(__file__).parents[2]
OPTIONAL = {"apprise", "psycopg", "pypdfium2", "uvloop"}
"""Each is looked for where a configuration wants it, or nobody misses it."""


def imported_late(path: Path) -> Iterator[str]:
    """Yield the modules of libraries that functions of a module import."""
    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(function):
            match node:
                case ast.Import(names=names):
                    yield from (one.name for one in names)
                case ast.ImportFrom(module=str(module), level=0):
                    yield module


def test_each_library_that_is_loaded_late_is_looked_for() -> None:
    found = {name for path in (ROOT / "relaygw").rglob("*.py") for name in imported_late(path)}
    libraries = {name.partition(".")[0] for name in found}
    libraries -= {"relaygw", *sys.stdlib_module_names}
    known = {name.partition(".")[0] for name in PACKAGES} - {"markupsafe"}
    assert libraries - OPTIONAL == known


def test_templates_that_are_not_there_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_packages, "_FIRST_TEMPLATE", tmp_path / "base.html")
    (problem,) = missing_parts()
    assert f"{tmp_path}/base.html: this template of the pages is not there" in problem


def test_all_of_it_is_there() -> None:
    assert list(missing_parts()) == []
