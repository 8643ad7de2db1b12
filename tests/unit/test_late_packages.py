"""What is loaded late is looked for early."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from relaygw import late_packages
from relaygw.late_packages import PACKAGES, missing_parts

ROOT = Path(__file__).parents[2]
OPTIONAL = {"apprise", "psycopg", "pypdfium2", "uvloop"}
"""Each is looked for where a configuration wants it, or nobody misses it."""


def imported(path: Path, *, is_late: bool) -> set[str]:
    """Return the libraries that a module imports, or those that its functions do."""
    tree = ast.parse(path.read_text())
    functions = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    nodes = [inner for one in functions for inner in ast.walk(one)] if is_late else tree.body
    names: set[str] = set()
    for node in nodes:
        match node:
            case ast.Import(names=found):
                names |= {one.name for one in found}
            case ast.ImportFrom(module=str(module), level=0):
                names.add(module)
    libraries = {name.partition(".")[0] for name in names}
    return libraries - {"relaygw", *sys.stdlib_module_names}


def test_each_library_that_is_loaded_late_is_looked_for() -> None:
    late: set[str] = set()
    early: set[str] = set()
    for path in (ROOT / "relaygw").rglob("*.py"):
        # the web role may run on demand, and so does the process that reads bounce mails
        is_of_web = (ROOT / "relaygw/web") in path.parents or path.name == "bounce_report.py"
        late |= imported(path, is_late=True) | (
            imported(path, is_late=False) if is_of_web else set()
        )
        early |= set() if is_of_web else imported(path, is_late=False)
    known = {name.partition(".")[0] for name in PACKAGES}
    assert late - OPTIONAL - early <= known <= late


def test_templates_that_are_not_there_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_packages, "_FIRST_TEMPLATE", tmp_path / "base.html")
    (problem,) = missing_parts()
    assert f"{tmp_path}/base.html: this template of the pages is not there" in problem


def test_all_of_it_is_there() -> None:
    assert list(missing_parts()) == []
