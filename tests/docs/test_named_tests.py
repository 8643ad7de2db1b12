"""Tests that a page names as its witness are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_NAME = re.compile(r"`(?:tests/)?([\w/]*test_\w+\.py)`")


@pytest.mark.parametrize("page", ["security.md", "reliability.md"])
def test_each_named_test_is_there(page: str) -> None:
    for line in (ROOT / "docs" / page).read_text().splitlines():
        directory = Path("tests")
        for name in _NAME.findall(line):
            path = Path("tests", name) if "/" in name else directory / name
            assert (ROOT / path).is_file(), line
            directory = path.parent
