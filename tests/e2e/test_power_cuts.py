"""The power is cut under load: nothing that was promised is lost; what does not sync does lose."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaign import IS_CAMPAIGN, times
from tests.rights import needs

ROOT = Path(__file__).resolve().parents[2]
CASES = [
    ("sqlite", "ext4", (), times(6, campaign=200), times(150, campaign=3000)),
    ("sqlite", "ext4", ("--control",), times(8, campaign=20), times(60, campaign=500)),
    ("postgres", "ext4", (), times(0, campaign=100), 3000),
    ("postgres", "ext4", ("--control",), times(0, campaign=10), 500),
    ("sqlite", "xfs", (), times(0, campaign=50), 1000),
]


@pytest.mark.campaign
@pytest.mark.timeout(3600 if IS_CAMPAIGN else 300)
@needs("disks")
@pytest.mark.parametrize(
    ("database", "file_system", "more", "images", "messages"),
    [pytest.param(*case, id="-".join([*case[:2], *case[2]])) for case in CASES if case[3]],
)
def test_a_power_cut_loses_nothing_that_was_promised(
    database: str, file_system: str, more: tuple[str, ...], images: int, messages: int
) -> None:
    words = ["--database", database, "--file-system", file_system, *more]
    words += ["--images", str(images), "--messages", str(messages)]
    for _ in range(8 if more else 1):  # chance may spare what few images of a control lack
        done = subprocess.run(
            [sys.executable, ROOT / "bench" / "power", *words],
            check=False,
            capture_output=True,
            text=True,
        )
        print(done.stdout)
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stdout + done.stderr
