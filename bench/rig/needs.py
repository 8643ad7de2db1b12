"""What a measurement needs of the machine, and what to do where it is missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bench.rig import machine

_PACKAGES = {
    "postfix": "postfix",
    "smtp-source": "postfix",
    "smtp-sink": "postfix",
    "stunnel4": "stunnel4",
    "openssl": "openssl",
}


def find_programs() -> None:
    """Look for programs where Debian keeps those for root, too, whatever PATH says."""
    os.environ["PATH"] = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"


def missing_program(*names: str) -> str:
    """Return which of the programs is missing, and its remedy; empty where all are there."""
    for name in names:
        if not shutil.which(name):
            return f"{name} is missing; install Debian's package {_PACKAGES[name]}"
    return ""


def what_is_missing(directory: Path) -> str:
    """Return why the comparison cannot run with its queues in `directory`; empty if it can."""
    if reason := missing_program(*_PACKAGES):
        return reason
    if not Path("/usr/share/postfix/main.cf.debian").exists():
        return "this needs Debian's package of Postfix, whose configuration it starts from"
    if os.geteuid() != 0:
        return "Postfix needs root, so run this as root"
    if not directory.is_dir():
        return f"{directory} is not a directory"
    if machine.filesystem(directory) == "tmpfs":
        return f"{directory} is in memory, where a sync costs nothing; name a disk: --directory"
    return ""
