"""Figures of the code itself: size, imports, reach of tests; if asked, what runs for a message.

Size is statements, since lines depend on formatting. `relaygw_postfix/` stands apart: the gateway
runs without it. What runs is counted in a running gateway, as `bench/counts` does.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.message_counts import of_one_message
from bench.reach_of_tests import private_uses, replaced_constants, trees_of
from bench.rig import needs

ROOT = Path(__file__).resolve().parents[1]
GATEWAY, POSTFIX, TESTS = (ROOT / name for name in ("relaygw", "relaygw_postfix", "tests"))
LONG_FUNCTION_LINES = 50


def main() -> int:
    """Print the figures asked for."""
    parser = argparse.ArgumentParser(
        prog="structure",
        description="Statements, files, lines and imports of relaygw/ and relaygw_postfix/, and "
        "how far tests reach past their doors. A statement is one of Python's grammar; docstrings "
        "and imports do not count.",
    )
    parser.add_argument(
        "--modules",
        action="store_true",
        help="name the modules that run for one message in and out, too (needs smtp-sink)",
    )
    asked = parser.parse_args()
    for line in _sizes():
        print(line)
    if not asked.modules:
        return 0
    needs.find_programs()
    if reason := needs.missing_program("smtp-sink"):
        print(f"structure: cannot count the modules: {reason}", file=sys.stderr)
        return 2
    modules = of_one_message(100).modules()
    print(f"modules that run for one message     {len(modules):7}")
    for name in sorted(modules):
        print(f"  {name}")
    return 0


def _sizes() -> Iterator[str]:
    packages = (GATEWAY, POSTFIX)
    files = {path: path.read_text() for each in packages for path in each.rglob("*.py")}
    trees = {path: ast.parse(text) for path, text in files.items()}
    yield f"statements of relaygw/               {count_statements(GATEWAY):7}"
    yield f"statements of relaygw_postfix/       {count_statements(POSTFIX):7}"
    yield f"files                                {len(files):7}"
    yield f"lines                                {sum(map(_count_lines, files.values())):7}"
    long_functions = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (node.end_lineno or 0) - node.lineno + 1 > LONG_FUNCTION_LINES
    ]
    yield f"functions over {LONG_FUNCTION_LINES} lines              {len(long_functions):7}"
    yield from (f"  {name}" for name in sorted(long_functions))
    imports = sum(_import_lines(tree) for tree in trees.values())
    code = sum(_code_lines(text) for text in files.values())
    yield f"import lines of code lines           {100 * imports / code:6.1f}%"
    product, tests = list(trees.values()), trees_of(TESTS)
    yield f"statements of tests/                 {count_statements(TESTS):7}"
    yield f"uses of private names by tests       {len(private_uses(product, tests)):7}"
    yield f"constants replaced by tests          {len(replaced_constants(product, tests)):7}"


def count_statements(package: Path) -> int:
    """Return the statements of a package."""
    trees = (ast.parse(path.read_text()) for path in package.rglob("*.py"))
    return sum(_is_counted(node) for tree in trees for node in ast.walk(tree))


def _is_counted(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)  # a docstring, `...`
    return isinstance(node, ast.stmt) and not isinstance(node, (ast.Import, ast.ImportFrom))


def _count_lines(text: str) -> int:
    return text.count("\n")


def _code_lines(text: str) -> int:
    stripped = (line.strip() for line in text.splitlines())
    return sum(bool(line) and not line.startswith("#") for line in stripped)


def _import_lines(tree: ast.Module) -> int:
    return sum(
        (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    )
