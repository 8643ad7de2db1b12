"""Inputs that atheris makes up, led by the lines of the product that they reach.

Imports nothing of relaygw: `watch` comes before that.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

_MAX_BYTES = 4096
_TOO_LONG_S = 10  # for one input
_MISSING = f"--target needs atheris: python3 -m pip --python {sys.executable} install atheris"


def _atheris() -> Any:
    if importlib.util.find_spec("atheris") is None:
        sys.exit(_MISSING)
    return importlib.import_module("atheris")


def watch() -> None:
    """Let atheris see which lines of relaygw run, of all that is imported from now on."""
    _atheris().instrument_imports(include=["relaygw"], enable_loader_override=False).__enter__()


def run(name: str, seconds: int) -> int:
    """Run one target for so long; ends the process, with 77 or so at a crash."""
    from bench.fuzzing.targets import TARGETS

    if name not in TARGETS:
        sys.exit(f"--target is one of {', '.join(TARGETS)}")
    atheris, target = _atheris(), TARGETS[name]
    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(target.inputs):
            Path(corpus, str(number)).write_bytes(data)
        options = [
            f"-max_total_time={seconds}",
            f"-max_len={_MAX_BYTES}",
            f"-timeout={_TOO_LONG_S}",
        ]
        atheris.Setup([f"{name}: {os.fspath(sys.argv[0])}", *options, corpus], target.run)
        atheris.Fuzz()
    return 0


def run_fixed() -> int:
    """Run the fixed inputs of all targets, without atheris."""
    from bench.fuzzing.targets import TARGETS, run_inputs

    for name in TARGETS:
        print(f"{name}: {run_inputs(name)} inputs, no crash")
    return 0
