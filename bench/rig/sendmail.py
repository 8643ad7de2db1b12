"""The sendmail commands to compare: relaygw's installed launcher, and Postfix's own."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.rig.gateway import ROOT, python

_HEAD = (
    b"To: customer@customer.bench.test\nFrom: shop@shop.bench.test\nSubject: order\n"
    b"MIME-Version: 1.0\nContent-Type: text/html; charset=utf-8\n\n"
)
_LINE = b"x" * 74 + b"\n"
# without a maildrop, so that nothing is written outside of the prefix: `relaygw install-sendmail`
# names the maildrop in /etc/relaygw, for every sendmail of the machine
_INSTALL = """
import sys
from pathlib import Path
from relaygw.cli.install_sendmail import Programs
prefix = Path(sys.argv[1])
list(Programs(prefix).install(maildrop=None, group=None, state_dir=prefix, force=False))
"""


@dataclass(frozen=True, slots=True)
class Sendmail:
    """One command, called as PHP calls it: `sendmail -t -i` with the message on stdin."""

    words: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def send(self, *, messages: int, size_bytes: int) -> float:
        """Call it once a message, one after the other; return the median time in ms.

        A time is that of the whole process. `size_bytes` is the whole message's size. Raises
        CalledProcessError when a call does not exit with 0.
        """
        with tempfile.TemporaryFile() as message:
            message.write((_HEAD + _LINE * (size_bytes // len(_LINE) + 1))[: size_bytes - 1])
            message.write(b"\n")
            message.flush()
            taken_ms = []
            for _ in range(messages):
                message.seek(0)
                begun_s = time.perf_counter()
                subprocess.run(
                    [*self.words, "-t", "-i"],
                    stdin=message,
                    env={**os.environ, **self.environment},
                    check=True,
                )
                taken_ms.append((time.perf_counter() - begun_s) * 1000)
        return median(taken_ms)


def install_ours(prefix: Path, maildrop: Path) -> Sendmail:
    """Install relaygw's command below `prefix`, for the front that takes mail from `maildrop`."""
    subprocess.run([python(), "-c", _INSTALL, str(prefix)], cwd=ROOT, check=True)
    return Sendmail((str(prefix / "sbin/sendmail"),), {"RELAYGW_MAILDROP": str(maildrop)})


def postfix_command(configuration: Path) -> Sendmail:
    """Return the command of the Postfix that has this configuration directory."""
    told = subprocess.run(
        ["postconf", "-c", str(configuration), "-h", "sendmail_path"],
        capture_output=True,
        text=True,
        check=True,
    )
    return Sendmail((told.stdout.strip(), "-C", str(configuration)))
