"""What several files of this folder need."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.sendmail_rig import Installation


@pytest.fixture(scope="module")
def installed() -> Iterator[Installation]:
    with tempfile.TemporaryDirectory(prefix="relaygw-sendmail-") as root:
        yield Installation(Path(root))


@pytest.fixture
def command(installed: Installation) -> Installation:
    installed.clear()
    return installed
