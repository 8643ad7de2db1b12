"""Mounts of the tests' own, seen by nobody else, with what a bare machine lacks."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

from bench.cutting.volume import leave_the_mounts_of_others
from tests import once

_HOSTS = Path("/etc/hosts")


def leave_others() -> None:
    """Let what tests mount be theirs alone, if they may mount; tests/rights.py tells if not."""
    if os.geteuid() != 0:
        return
    try:
        leave_the_mounts_of_others()
        _bring_control_groups()
        _bring_own_name()
    except (OSError, subprocess.CalledProcessError):
        return


def _bring_control_groups() -> None:
    """Mount what a systemd needs, as a chroot has it not."""
    if " cgroup2 " not in Path("/proc/mounts").read_text():
        _mount("-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")


def _bring_own_name() -> None:
    """Name this machine in a file: no command waits for a resolver that does not answer."""
    _HOSTS.touch()  # a mount needs it
    text, name = _HOSTS.read_text(), socket.gethostname()
    missing = {"localhost": "127.0.0.1", name: "127.0.1.1"}.items()
    lines = [f"{address} {host}" for host, address in missing if host not in text.split()]
    if lines:
        own = once.directory() / "hosts"
        own.write_text("\n".join([text, *lines, ""]))
        _mount("--bind", str(own), str(_HOSTS))


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)
