"""Packages of PyPI that tests run in a process of their own, beside the environment.

They do not get into it: what they depend on is not for the project to have.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

_CACHE = Path(sys.prefix) / "cache" / "pip"


def pip_target(requirement: str, *, needs: tuple[str, ...]) -> Path:
    """Return the folder for PYTHONPATH; `needs` is what the package really needs of what it says.

    All with exact versions. Asks pip if it is not there yet.
    """
    folder = _CACHE / requirement.replace("==", "-")
    if not folder.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_CACHE) as fresh:
            target = Path(fresh) / "site"
            # the environment has no pip of its own: Debian's python cannot put one in
            pip = [sys._base_executable, "-m", "pip", "--python", sys.executable]
            pip += ["install", "--quiet", "--target", str(target)]
            subprocess.run([*pip, *needs], check=True, timeout=100)
            subprocess.run([*pip, "--no-deps", requirement], check=True, timeout=100)
            try:
                target.rename(folder)
            except OSError:  # another test process was as quick
                if not folder.exists():
                    raise
    return folder
