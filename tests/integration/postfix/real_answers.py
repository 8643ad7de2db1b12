"""What a real Postfix answers: trivial-rewrite(8) for the way, postmap for logins and TLS."""

from __future__ import annotations

import functools
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

_DAEMONS = Path("/usr/lib/postfix/sbin")


@dataclass(frozen=True)
class RealWay:
    """The next hop as Postfix names it."""

    transport: str
    nexthop: str


def real_way(home: Path, sender: str, recipient: str) -> RealWay:
    """Ask trivial-rewrite, as qmgr does; a process for one question, beside any running Postfix."""
    asked = {"request": "resolve", "sender": sender, "address": recipient}
    data = b"".join(f"{name}\0{value}\0".encode() for name, value in asked.items()) + b"\0"
    done = subprocess.run(
        [_DAEMONS / "trivial-rewrite", "-S"], input=data, capture_output=True, check=False,
        env={"MAIL_CONFIG": str(home), "PATH": os.environ["PATH"]}, timeout=30,
    )  # fmt: skip
    words = done.stdout.decode().split("\0")
    answer = dict(zip(words[::2], words[1::2], strict=False))
    return RealWay(answer["transport"], answer["nexthop"])


@functools.cache
def setting(home: Path, name: str, service: str = "") -> str:
    """Return a parameter's value as a service sees it."""
    if service:
        done = _run("postconf", "-c", str(home), "-h", "-x", "-P", f"{service}/unix/{name}")
        if done.stdout:
            return done.stdout.strip()
    return _run("postconf", "-c", str(home), "-h", "-x", name).stdout.strip()


@functools.cache
def query(home: Path, name: str, key: str, service: str = "") -> str | None:
    """Ask the tables of a parameter for a key."""
    for table in setting(home, name, service).split(", "):
        done = _run("postmap", "-c", str(home), "-q", key, table.removeprefix("proxy:"))
        if table and done.returncode == 0:
            return done.stdout.strip()
    return None


def real_login(home: Path, sender: str, nexthop: str, service: str) -> str | None:
    """Return what smtp(8) takes from its password maps, by the order in postconf(5)."""
    if setting(home, "smtp_sasl_auth_enable", service) != "yes":
        return None
    keys = []
    if setting(home, "smtp_sender_dependent_authentication", service) == "yes" and sender:
        keys += [sender, f"@{sender.partition('@')[2]}"]
    keys += [nexthop.partition("]")[0].strip("["), nexthop]
    found = (query(home, "smtp_sasl_password_maps", key, service) for key in keys)
    return next((one for one in found if one), None)


def real_level(home: Path, nexthop: str, service: str) -> str:
    """Return the TLS level for a next hop."""
    policy = query(home, "smtp_tls_policy_maps", nexthop, service)
    return (policy or setting(home, "smtp_tls_security_level", service) or "none").split()[0]


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)
