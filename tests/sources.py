"""The files of the program itself: of the gateway, and of the packages beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
GATEWAY = ROOT / "relaygw"
BESIDE = (ROOT / "relaygw_postfix",)
"""The gateway runs without these."""


def source_files() -> Iterator[Path]:
    """Yield the modules of all packages."""
    for package in (GATEWAY, *BESIDE):
        yield from sorted(package.rglob("*.py"))


def module_of(path: Path) -> str:
    """Return the name by which a file is imported."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")
