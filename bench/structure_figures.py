"""Figures of the code itself: its size, its imports, and what runs for one message.

The last is counted in a running gateway: a profile hook, installed before the roles are forked,
notes each module of relaygw that runs while one message comes in and goes out.
"""

from __future__ import annotations

import argparse
import ast
import os
import smtplib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.rig.gateway import PATIENCE_S, Gateway, provider
from bench.rig.sink import Sink
from bench.structure_hook import FLAG, FOUND, PACKAGE

LONG_FILE_LINES = 400
LONG_FUNCTION_LINES = 50
MESSAGES = 6
_SETTLED_S = 0.1  # the outcome is recorded after the provider's last answer


def main() -> int:
    """Print the figures asked for."""
    parser = argparse.ArgumentParser(
        prog="structure",
        description="Lines, files and imports of relaygw/, and the modules that run for one "
        "message in and out.",
    )
    parser.add_argument("--modules", action="store_true", help="name the modules that run")
    asked = parser.parse_args()
    for line in _sizes():
        print(line)
    modules = modules_of_one_message()
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


# --- one message through a gateway ---------------------------------------------------------


def modules_of_one_message() -> set[str]:
    """Return the modules of relaygw that run for each message, from connection to recorded outcome.

    One message goes before, so that what only happens once is not counted, and what does not run
    for each of the next ones has other reasons: it looks around once a second.
    """
    with tempfile.TemporaryDirectory() as name, Sink() as sink:
        directory = Path(name)
        flag, found = directory / FLAG, directory / FOUND
        flag.write_bytes(b"\0")
        found.touch()
        gateway = Gateway(directory, providers={"p": provider(sink.port)})
        gateway.program = ("-m", "bench.structure_hook")
        numbers = range(1, MESSAGES + 1)
        with gateway, flag.open("r+b", buffering=0) as switch:
            _pass_one(gateway, sink, 1)
            for number in numbers:
                os.pwrite(switch.fileno(), bytes([number]), 0)
                _pass_one(gateway, sink, 1 + number)
                os.pwrite(switch.fileno(), b"\0", 0)
        lines = [line.split(" ", 1) for line in found.read_text().splitlines()]
    ran = [{file for which, file in lines if int(which) == number} for number in numbers]
    return {str(Path(file).relative_to(PACKAGE)) for file in set.intersection(*ran)}


def _pass_one(gateway: Gateway, sink: Sink, total: int) -> None:
    with smtplib.SMTP("127.0.0.1", gateway.smtp_port) as client:
        client.sendmail("a@shop.test", ["b@cust.test"], "Subject: x\r\n\r\nhello\r\n")
    sink.wait_for(total, patience_s=PATIENCE_S)
    time.sleep(_SETTLED_S)
