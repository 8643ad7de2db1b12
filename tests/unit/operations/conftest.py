"""A queue whose mail has a story."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.operations.story_rig import StoryRig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[StoryRig]:
    rig = StoryRig(tmp_path)
    yield rig
    rig.store.close()
