"""Changes of code are what they say, and still Python."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from bench.mutating.patch import Functions
from bench.mutating.plugin import Calls
from bench.mutating.points import find_mutants
from bench.mutating.room import by_subject

SOURCE = """\
LIMIT = 3

def näher(a: int = 1) -> bool:
    if not (a) < (LIMIT):
        note(a)
        return True
    while a and "ü" in b: break
    if b:
        return None
    return a + 1 if a is None else False
"""


def test_each_change_stands_where_it_says_and_is_python() -> None:
    mutants = find_mutants("module.py", SOURCE.encode())
    as_it_is = ast.dump(ast.parse(SOURCE))
    for mutant in mutants:
        assert ast.dump(ast.parse(mutant.apply(SOURCE.encode()))) != as_it_is
    found = {(one.line, one.function, one.old, one.new) for one in mutants}
    assert found >= {
        (1, "", "3", "4"),
        (3, "3", "1", "2"),
        (4, "3", "<", "<="),
        (4, "3", "not (a) < (LIMIT)", "((a) < (LIMIT))"),
        (4, "3", "not (a) < (LIMIT)", "not (not (a) < (LIMIT))"),
        (5, "3", "note(a)", "pass"),
        (6, "3", "return True", "return None"),
        (7, "3", "and", "or"),
        (7, "3", "in", "not in"),
        (7, "3", "break", "continue"),
        (10, "3", "+", "-"),
        (10, "3", "is", "is not"),
        (10, "3", "False", "True"),
    }


LOADED = """\
def total(prices, least=1):
    def bare(one):
        return (
            one - 1
        )
    return [bare(one) for one in prices] if prices else least

def after(): return not total
"""


def loaded(path: Path) -> Any:
    path.write_text(LOADED)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_change_is_put_in_place_in_loaded_functions(tmp_path: Path) -> None:
    found: dict[str, object] = {}
    for mutant in find_mutants("shop.py", LOADED.encode()):
        module = loaded(tmp_path / "shop.py")
        functions = [one for one in vars(module).values() if isinstance(one, FunctionType)]
        key = f"{mutant.line} {' '.join(mutant.old.split())} -> {mutant.new}"
        is_changed = Functions(tmp_path, functions).change(mutant)
        is_true = module.after()
        found[key] = is_changed and {
            "total": module.total([3]),
            "least": module.total([]),
            "after": is_true if is_true is None else bool(is_true),
        }
    as_it_is: dict[str, object] = {"total": [2], "least": 1, "after": False}
    assert found == {
        "1 1 -> 2": False,  # a default is made by an import
        "3 return ( one - 1 ) -> return None": as_it_is | {"total": [None]},
        "4 - -> +": as_it_is | {"total": [4]},
        "4 1 -> 2": as_it_is | {"total": [1]},
        "6 prices -> not (prices)": as_it_is | {"total": 1, "least": []},
        "6 return [bare(one) for one in prices] if prices else least -> return None": as_it_is
        | {"total": None, "least": None},
        "8 not total -> (total)": as_it_is | {"after": True},
        "8 return not total -> return None": as_it_is | {"after": None},
    }


def test_of_a_test_that_fails_as_it_is_no_more_than_its_name_is_kept(tmp_path: Path) -> None:
    ran, kept = Calls(tmp_path), Calls(tmp_path)
    for name, outcome in (("a", "passed"), ("b", "failed")):
        ran.by_test[name] = {"relaygw/shop.py:1"}
        for when in ("setup", "call", "teardown"):
            said: Any = outcome if when == "call" else "passed"
            ran.pytest_runtest_logreport(
                pytest.TestReport(name, ("", 0, ""), {}, said, None, when, duration=0.5)  # type: ignore[arg-type]
            )
    ran.save(tmp_path / "calls")
    kept.load(tmp_path / "calls")
    assert (kept.by_test, kept.failed) == ({"a": {"relaygw/shop.py:1"}}, {"b"})
    assert kept.seconds == {"a": 1.5}


def test_tests_about_a_module_come_first_and_then_one_of_each_file_by_turns() -> None:
    shop, guard = "tests/contract/test_shop.py", "tests/contract/test_guard.py"
    own, near = "tests/contract/test_basket_full.py", "tests/unit/store/test_lines.py"
    tests = [f"{file}::{n}" for file in (shop, guard, near, own) for n in (1, 2)]
    assert by_subject("relaygw/store/basket.py", tests) == [
        *(f"{own}::{n}" for n in (1, 2)),
        *(f"{near}::{n}" for n in (1, 2)),
        *(f"{file}::{n}" for n in (1, 2) for file in (shop, guard)),
    ]
