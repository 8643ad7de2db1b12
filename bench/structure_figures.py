"""Figures of the code itself: its size, its imports, and what runs for one message.

The last is counted in a running gateway, as `bench/counts` does.
"""

from __future__ import annotations

import argparse
import ast
import signal
from collections.abc import Iterator
from pathlib import Path

from bench.message_counts import of_one_message

PACKAGE = Path(__file__).resolve().parents[1] / "relaygw"
LONG_FILE_LINES = 400
LONG_FUNCTION_LINES = 50


def main() -> int:
    """Print the figures asked for."""
    parser = argparse.ArgumentParser(
        prog="structure",
        description="Lines, files and imports of relaygw/, and the modules that run for one "
        "message in and out.",
    )
    parser.add_argument("--modules", action="store_true", help="name the modules that run")
    asked = parser.parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it
    for line in _sizes():
        print(line)
    modules = of_one_message(100).modules()
    print(f"modules that run for one message     {len(modules):7}")
    if asked.modules:
        for name in sorted(modules):
            print(f"  {name}")
    return 0


def _sizes() -> Iterator[str]:
    files = {path: path.read_text() for path in PACKAGE.rglob("*.py")}
    trees = {path: ast.parse(text) for path, text in files.items()}
    yield f"files of relaygw/                    {len(files):7}"
    yield f"lines                                {sum(map(_count_lines, files.values())):7}"
    long_files = [path for path, text in files.items() if _count_lines(text) > LONG_FILE_LINES]
    long_functions = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (node.end_lineno or 0) - node.lineno + 1 > LONG_FUNCTION_LINES
    ]
    yield f"files over {LONG_FILE_LINES} lines                 {len(long_files):7}"
    yield from (f"  {path.relative_to(PACKAGE)}" for path in sorted(long_files))
    yield f"functions over {LONG_FUNCTION_LINES} lines              {len(long_functions):7}"
    yield from (f"  {name}" for name in sorted(long_functions))
    imports = sum(_import_lines(tree) for tree in trees.values())
    code = sum(_code_lines(text) for text in files.values())
    yield f"import lines of code lines           {100 * imports / code:6.1f}%"


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
