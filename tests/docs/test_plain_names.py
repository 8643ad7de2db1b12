"""Names and docstrings of the code that say too little: their numbers may only fall."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache

from tests.sources import source_files

MOST_ONES = 10
MOST_COMMON_METHODS = 60
COMMON_FROM = 3  # classes


@cache
def trees() -> tuple[ast.Module, ...]:
    return tuple(ast.parse(path.read_text()) for path in source_files())


def nodes() -> Iterator[ast.AST]:
    for tree in trees():
        yield from ast.walk(tree)


def test_a_docstring_names_its_result() -> None:
    documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module
    docstrings = (ast.get_docstring(node) or "" for node in nodes() if isinstance(node, documented))
    assert [text for text in docstrings if text.startswith("Return what")] == []


def test_one_is_a_name_of_nothing() -> None:
    names = sum(isinstance(node, ast.Name) and node.id == "one" for node in nodes())
    arguments = sum(isinstance(node, ast.arg) and node.arg == "one" for node in nodes())
    assert names + arguments <= MOST_ONES


def test_a_method_says_its_object() -> None:
    """A reader who follows a call meets as many candidates as classes have a method of its name.

    What a Protocol or an abstract base declares is meant to stand in several.
    """
    classes: defaultdict[str, int] = defaultdict(int)
    declared: set[str] = set()
    for node in nodes():
        if isinstance(node, ast.ClassDef):
            methods = [
                method
                for method in node.body
                if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
                and not method.name.startswith("__")
            ]
            for method in methods:
                classes[method.name] += 1
            bases = {ast.unparse(base).rpartition(".")[2].partition("[")[0] for base in node.bases}
            if bases & {"Protocol", "ABC"}:
                declared.update(method.name for method in methods)
    common = [name for name, number in classes.items() if number >= COMMON_FROM]
    common = [name for name in common if name not in declared]
    assert len(common) <= MOST_COMMON_METHODS, sorted(common)
