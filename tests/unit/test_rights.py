"""What a machine cannot do is told before the first test, with the tests that are left out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.rights import needs

ROOT = Path(__file__).parents[2]


@needs("root")
def test_root_that_may_not_mount_is_told_so_and_what_is_left_out() -> None:
    file = "tests/e2e/test_image.py"
    done = subprocess.run(
        [
            *("setpriv", "--bounding-set", "-sys_admin"),  # as a container has it
            *(sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", file),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told, counted, *_ = done.stdout.splitlines()
    assert told.startswith("this machine cannot mount in a namespace of its own (unshare: ")
    left_out = int(counted.split()[0])
    assert told.endswith(f"so {left_out} tests are left out:")
    assert counted == f"  {left_out:4} of {file}"
    assert f"{left_out} skipped" in done.stdout
