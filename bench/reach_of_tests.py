"""How far tests reach past the doors of the product: private names used, constants replaced.

A name is private to the product if it begins with an underscore and is defined below `relaygw/`
and not in the tests themselves; what is replaced is a constant of a module of the product.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]*")
Trees = Iterable[ast.Module]


def trees_of(directory: Path) -> list[ast.Module]:
    """Return what is written below a directory, parsed."""
    return [ast.parse(path.read_text()) for path in sorted(directory.rglob("*.py"))]


_OF_LIBRARIES = frozenset({"_mapping", "_replace"})
"""Names of SQLAlchemy's rows and of named tuples that the product defines, too."""


def private_uses(product: Trees, tests: Trees) -> list[str]:
    """Return the private names of the product that tests use as attributes, once for each use."""
    tests = list(tests)
    private = _defined(product) - _defined(tests) - _OF_LIBRARIES
    used = (node.attr for node in _nodes(tests) if isinstance(node, ast.Attribute))
    return [name for name in used if _is_private(name) and name in private]


def replaced_constants(product: Trees, tests: Trees) -> list[str]:
    """Return the constants of the product that tests replace, once for each place."""
    constants = {name for name in _defined(product) if _CONSTANT.fullmatch(name)}
    return [name for name in map(_replaced, _nodes(tests)) if name in constants]


def _replaced(node: ast.AST) -> str:
    """Return the name of the attribute that a statement or a call sets, empty if it sets none."""
    match node:
        case ast.Attribute(attr=name, ctx=ast.Store()):
            return name
        case ast.Call(func=ast.Attribute(attr="setattr") | ast.Name(id="setattr"), args=arguments):
            # by object and name, or by a dotted path
            named = [one.value for one in arguments[:2] if isinstance(one, ast.Constant)]
            return str(named[0]).rpartition(".")[2] if named else ""
        case _:
            return ""


def _defined(trees: Trees) -> set[str]:
    names = set()
    for node in _nodes(trees):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                names.add(name)
    return names


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _nodes(trees: Trees) -> Iterator[ast.AST]:
    for tree in trees:
        yield from ast.walk(tree)
