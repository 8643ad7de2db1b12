"""relaygw in somebody's home directory; the system's Python, or a copy of it, runs sendmail.

The tests' own Python may lie where nobody else may look; what other users run is made with another.
"""

from __future__ import annotations

import pwd
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import relaygw

DEBIAN = Path("/usr/bin/python3").resolve()
_PROGRAM = """
import os, sys
sys._base_executable, os.__file__ = {python!r}, {library!r}
from relaygw.cli import main
main()
"""
_MAIL = "exit(mail('b@cust.test', {subject!r}, 'hello', 'From: a@shop.test') ? 0 : 1);"
WEB_SERVER = pwd.getpwnam("www-data")


class Checkout:
    """A checkout below `root`/home, which runs with `python`; commands go below `root`/usr."""

    def __init__(self, root: Path, *, python: Path = DEBIAN, mode: int = 0o755) -> None:
        root.chmod(0o755)
        self.root = root
        self.home = root / "home"
        self.home.mkdir(mode=mode)
        self.prefix = root / "usr"
        self._python = python
        # compiled as it is
        shutil.copytree(Path(relaygw.__file__).parent, self.home / "src/relaygw")

    def command(self) -> list[str]:
        """Return the words that start `relaygw`."""
        library = f"/usr/lib/{DEBIAN.name}/os.py"
        return [sys.executable, "-c", _PROGRAM.format(python=str(self._python), library=library)]

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        return {**environ, "PYTHONPATH": str(self.home / "src")}

    def mail_of_web_server(self, subject: str) -> subprocess.CompletedProcess[str]:
        """Have PHP send a mail as the user of a web server."""
        sendmail = f"sendmail_path={self.prefix}/sbin/sendmail -t -i"
        return subprocess.run(
            ["php", "-d", sendmail, "-r", _MAIL.format(subject=subject)],
            env={"PATH": "/usr/bin:/bin"},
            cwd="/",
            user=WEB_SERVER.pw_uid,
            group=WEB_SERVER.pw_gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )
