"""Every regular expression of the program: where it stands and how it is used.

Found in the sources of all modules that the import graph reaches from the rooms where a stranger's
bytes come in. One that its module cannot name when it is loaded, for it is made in a function, has
to be given by hand.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.sources import ROOT, module_of, source_files

_CALLS = frozenset(
    ("compile", "search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer")
)
_OF_COMMANDS = (  # that read what strangers wrote: logs and files of Postfix
    "relaygw_postfix.maillog",
    "relaygw_postfix.queue_file",
)
_FROM_EACH_PLACE = frozenset(("search", "sub", "subn", "split", "findall", "finditer"))


@dataclass(frozen=True, slots=True)
class Used:
    """A place with an expression, or with several; with none where a function makes it."""

    place: str  # module:name, or module:the call as it is written
    patterns: list[re.Pattern[Any]]
    method: str  # the costliest way in which it is used: search, fullmatch or match


def modules(roots: tuple[str, ...]) -> list[str]:
    """Return the names of all modules that these import, directly or not, themselves included."""
    seen: dict[str, None] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in seen or not name.startswith("relaygw") or _file(name) is None:
            continue
        seen[name] = None
        waiting += _imports(name)
    return sorted(seen)


def reached() -> list[str]:
    """Return the modules on a stranger's way: all but those of an administrator's commands."""
    return modules(tuple(name for name in _all() if _is_of_strangers(name)))


def _is_of_strangers(name: str) -> bool:
    package, _, inner = name.partition(".")
    is_of_gateway = package == "relaygw" and inner.partition(".")[0] not in ("cli", "__main__")
    return name in _OF_COMMANDS or is_of_gateway


def used_in(name: str) -> Iterator[Used]:
    """Yield the expressions of a module."""
    module = importlib.import_module(name)
    for title, call in _expressions(name):
        assert isinstance(call.func, ast.Attribute)
        pattern = _evaluated(call, module)
        is_made = call.func.attr == "compile"
        is_named = isinstance(title, str) and isinstance(vars(module).get(title), re.Pattern)
        method = _method(title, name) if is_made and is_named else call.func.attr
        yield Used(
            f"{name}:{title if is_named else ast.unparse(call)}",
            [pattern] if pattern is not None else _held(title, module),
            "search" if method in _FROM_EACH_PLACE or method == "compile" else method,
        )


def _expressions(name: str) -> Iterator[tuple[str | None, ast.Call]]:
    """Yield each expression with the name of what a module makes of it, such as several of them."""
    for statement in _tree(name).body:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        title = target.id if isinstance(target, ast.Name) else None
        for node in ast.walk(statement):
            if _is_expression(node):
                assert isinstance(node, ast.Call)
                yield title, node


def _is_expression(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "re"
        and node.func.attr in _CALLS
    )


def _evaluated(call: ast.Call, module: ModuleType) -> re.Pattern[Any] | None:
    """Return the expression of a call, with what its module knows; None if that is not enough."""
    assert isinstance(call.func, ast.Attribute)
    flags = {keyword.value for keyword in call.keywords if keyword.arg == "flags"} or set(
        call.args[1:2] if call.func.attr == "compile" else call.args[2:3]
    )
    if call.func.attr in ("sub", "subn", "split") and not any(
        keyword.arg == "flags" for keyword in call.keywords
    ):
        flags = set()
    try:
        text = _value(call.args[0], module)
        return re.compile(text, *[_value(flag, module) for flag in flags])
    except (NameError, TypeError):
        return None


def _held(name: str | None, module: ModuleType) -> list[re.Pattern[Any]]:
    """Return the expressions in what a module calls so."""
    waiting, found = [vars(module).get(name or "")], []
    while waiting:
        value = waiting.pop()
        if isinstance(value, re.Pattern):
            found.append(value)
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, tuple | list):
            waiting += value
    return found


def _value(node: ast.expr, module: ModuleType) -> Any:
    expression = compile(ast.Expression(node), "<expression>", "eval")
    return eval(expression, vars(module))


def _method(title: str | None, name: str) -> str:
    """Return how a compiled expression of a module is used; from each place, if that is unknown."""
    methods = {method for each in _readers(name) for used, method in _uses(each) if used == title}
    if not methods or methods & _FROM_EACH_PLACE:
        return "search"
    return "fullmatch" if "fullmatch" in methods else "match"


@cache
def _uses(name: str) -> frozenset[tuple[str, str]]:
    """Return which attribute of which name a module takes."""
    return frozenset(
        (node.value.id, node.attr)
        for node in ast.walk(_tree(name))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    )


@cache
def _readers(name: str) -> tuple[str, ...]:
    """Return the modules that import a module, and itself."""
    return (name, *(each for each in _all() if name in _imports(each)))


@cache
def _all() -> tuple[str, ...]:
    return tuple(map(module_of, source_files()))


@cache
def _imports(name: str) -> tuple[str, ...]:
    found = []
    for node in ast.walk(_tree(name)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(one for one in found if one.startswith("relaygw"))


def _file(name: str) -> Path | None:
    place = ROOT / Path(*name.split("."))
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def _tree(name: str) -> ast.Module:
    path = _file(name)
    assert path is not None
    return ast.parse(path.read_text("utf-8"))


def calls_in(name: str, wanted: frozenset[str]) -> Iterator[str]:
    """Yield where a module calls functions with one of these names: module:function:call."""
    for scope in ast.walk(_tree(name)):
        if not isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(scope):
            if isinstance(node, ast.Call):
                called = node.func
                at = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
                said = {at, *(one.value for one in node.args if isinstance(one, ast.Constant))}
                for each in said & wanted:
                    yield f"{name}:{scope.name}:{each}"
