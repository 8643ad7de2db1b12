"""Each wait of the worker that is longer than ten seconds is in the table of docs/states.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import relaygw
from relaygw.delivery.gate import PAUSE_LONGEST_S
from relaygw.settings.alerts import Rule
from relaygw.upstream.classifier import catalogue
from tests.docs.render_states import ALL_STEPS, NO_WAITS, WAITS, seconds

_ROOT = Path(relaygw.__file__).parent
_ROOMS = ("delivery", "upstream", "policy", "store")
_NAME = re.compile(r"(_S|_MS)$|LADDER|TIMEOUT|RETRY|PATIENCE|WAIT", re.IGNORECASE)
_WAITING = {"sleep", "timeout", "wait_for", "wait", "call_later"}
_LONG_S = 10.0


def trees() -> Iterator[tuple[str, ast.Module]]:
    for room in _ROOMS:
        for path in sorted((_ROOT / room).rglob("*.py")):
            name = ".".join(path.relative_to(_ROOT).with_suffix("").parts)
            yield name, ast.parse(path.read_text())


def names_in(node: ast.stmt) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else []
    targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
    inner = (one for target in targets for one in ast.walk(target))
    return [one.id for one in inner if isinstance(one, ast.Name)]


def long_constants() -> set[str]:
    found = set()
    for place, tree in trees():
        module = import_module(f"relaygw.{place}")
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        of_module = [(module, node) for node in tree.body]
        of_classes = [(getattr(module, one.name), node) for one in classes for node in one.body]
        for owner, node in (*of_module, *of_classes):
            for name in names_in(node):
                per_s = 1000 if name.upper().endswith("_MS") else 1
                numbers = seconds(getattr(owner, name, None), per_s=per_s)
                if _NAME.search(name) and max(numbers, default=0.0) > _LONG_S:
                    found.add(f"{place}.{'' if owner is module else f'{owner.__name__}.'}{name}")
    return found


def test_each_long_wait_is_in_the_table_or_is_none() -> None:
    told = {name.partition("+")[0] for _, names, *_ in WAITS for name in names.split()}
    waits = {one for one in told if not one.startswith(("settings.", "replies.", ALL_STEPS))}
    others = {one for names in NO_WAITS.values() for one in names.split()}
    found = long_constants()
    where = "tests/docs/render_states.py: what waits for it, how does it end, where does it show?"
    assert not found - waits - others, where
    assert not (waits | others) - found, "in a table there, and not in the code"
    assert not waits & others


def test_no_wait_hides_in_a_call() -> None:
    long = [
        f"{place}:{node.lineno}"
        for place, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", "")) in _WAITING
        for given in (*node.args, *(one.value for one in node.keywords))
        if isinstance(given, ast.Constant) and max(seconds(given.value), default=0.0) > _LONG_S
    ]
    assert long == []


def test_what_the_table_says_of_alerts_exists() -> None:
    rules = {rule.value for rule in Rule}
    for *_, told in WAITS:
        assert rules.issuperset(re.findall(r"`(\w+)`", told))


def test_no_row_of_the_catalogue_waits_longer_than_a_pause() -> None:
    rows = [row for section in catalogue().values() for row in section]
    throttles = [row for row in rows if row.verdict == "throttle"]
    assert throttles
    assert max(wait_s for row in throttles for wait_s in row.wait) <= PAUSE_LONGEST_S
