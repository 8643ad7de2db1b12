"""The files of the program itself: of the gateway, and of the packages beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
GATEWAY = ROOT / "relaygw"
POSTFIX = ROOT / "relaygw_postfix"
BESIDE = (POSTFIX,)
"""The gateway runs without these."""
ONLY_FROM = """\
import sys
from pathlib import Path
others = [place for place in sys.path if not (Path(place) / "relaygw_postfix").exists()]
sys.path[:] = [sys.argv.pop(1), *others]
from relaygw.cli import main
main()
"""
"""Runs the command with what a directory has of relaygw: `python -I -c ONLY_FROM PATH WORD ...`."""


def source_files() -> Iterator[Path]:
    """Yield the modules of all packages."""
    for package in (GATEWAY, *BESIDE):
        yield from sorted(package.rglob("*.py"))


def module_of(path: Path) -> str:
    """Return the name by which a file is imported."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")
