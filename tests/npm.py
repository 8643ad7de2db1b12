"""Packages of npm for tests, each of one version, fetched once and kept beside the environment."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

_CACHE = Path(sys.prefix) / "cache" / "npm"


def npm_package(name: str, version: str) -> Path:
    """Return the folder of a package, without what it depends on; asks npm if it is not there."""
    folder = _CACHE / f"{name}-{version}"
    if not folder.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_CACHE) as fresh:
            subprocess.run(
                ["npm", "pack", f"{name}@{version}", "--silent", "--pack-destination", fresh],
                check=True, timeout=100, cwd=fresh,
            )  # fmt: skip
            (archive,) = Path(fresh).glob("*.tgz")
            with tarfile.open(archive) as files:
                files.extractall(fresh, filter="data")
            _put(Path(fresh) / "package", folder)
    return folder


def _put(found: Path, folder: Path) -> None:
    try:
        found.rename(folder)
    except OSError:  # another test process was as quick
        if not folder.exists():
            raise
