"""The sendmail command as an installation has it, run as processes, and its drop files.

The package is copied to where every user may read it, without the environment's libraries,
and started by a launcher like the installed one.
"""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import relaygw

NOBODY = 65534
PATIENCE_S = 90.0
_SYSTEM_PYTHON = "/usr/bin/python3"
_LAUNCHER = """#!{python} -IS
import sys

sys.path.insert(0, "{root}")
from relaygw.sendmail import main

main("{gateway}")
"""
_TRAILER = re.compile(rb"\nrelaygw end (\d+)\n\Z")


@dataclass(frozen=True)
class Drop:
    """What a drop file says; values as bytes."""

    path: Path
    lines: list[tuple[str, bytes]]
    content: bytes

    def values(self, name: str) -> list[bytes]:
        return [value for found, value in self.lines if found == name]

    @property
    def sender(self) -> bytes:
        (sender,) = self.values("from")
        return sender

    @property
    def recipients(self) -> list[bytes]:
        return self.values("to")


def read_drop(path: Path) -> Drop:
    assert re.fullmatch(r"[0-9a-f]{32}\.drop", path.name)
    raw = path.read_bytes()
    head, _, rest = raw.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    assert first == b"relaygw drop 1"
    trailer = _TRAILER.search(rest)
    assert trailer is not None
    content = rest[: trailer.start()]
    assert len(content) == int(trailer[1])
    pairs = [line.partition(b" ") for line in lines]
    return Drop(path, [(name.decode(), _decoded(value)) for name, _, value in pairs], content)


def _decoded(value: bytes) -> bytes:
    assert value.decode().isprintable()
    return re.sub(rb"%([0-9A-F]{2})", lambda found: bytes.fromhex(found[1].decode()), value)


class Installation:
    """An installed command, with a maildrop that every user may write to."""

    def __init__(self, root: Path) -> None:
        root.chmod(0o755)
        self.root = root
        self.gateway = root / "gateway"  # stands for the `relaygw` command
        self.gateway.write_text('#!/bin/sh\necho "$@"\n')
        self.gateway.chmod(0o755)
        source = Path(relaygw.__file__).parent
        shutil.copytree(source, root / "relaygw", ignore=shutil.ignore_patterns("__pycache__"))
        self.sendmail = root / "sendmail"
        python = _SYSTEM_PYTHON if Path(_SYSTEM_PYTHON).exists() else sys.executable
        self.sendmail.write_text(_LAUNCHER.format(python=python, root=root, gateway=self.gateway))
        self.sendmail.chmod(0o755)
        for name in ("mailq", "newaliases"):
            (root / name).symlink_to("sendmail")
        self.maildrop = root / "maildrop"
        self.maildrop.mkdir()
        self.maildrop.chmod(0o3733)

    def environment(self, maildrop: Path | None = None) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin", "RELAYGW_MAILDROP": str(maildrop or self.maildrop)}

    def run(
        self,
        *words: str | bytes,
        content: bytes = b"",
        stdin: int | None = None,
        name: str = "sendmail",
        maildrop: Path | None = None,
        more_environment: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
        uid: int | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the command to its end; `before` is the words of a program that starts it.

        `stdin`, a descriptor, is read instead of `content`.
        """
        return subprocess.run(
            [*before, self.root / name, *words],
            input=content if stdin is None else None,
            stdin=stdin,
            env=self.environment(maildrop) | dict(more_environment or {}),
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )

    def drops(self) -> list[Drop]:
        """Return what is in the maildrop, and see that nothing unfinished is."""
        paths = sorted(self.maildrop.iterdir())
        assert all(path.name.endswith(".drop") for path in paths), paths
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o640 for path in paths)
        return [read_drop(path) for path in paths]

    def only_drop(self) -> Drop:
        (drop,) = self.drops()
        return drop

    def clear(self) -> None:
        for path in self.maildrop.iterdir():
            path.unlink()
