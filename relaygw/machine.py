"""Which machine this is: its id as programs may show it, and whether this is a container.

The id of machine-id(5) is confidential: what is kept is the id that systemd derives from it for one
program, the same as `systemd-id128 machine-id --app-specific=` with `PROGRAM` prints.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

PROGRAM = UUID("6f2c1c5e-0d0b-4f0c-9d57-3b8e6a41c7d2")
# the second is D-Bus's, on machines without systemd
_IDS = ("/etc/machine-id", "/var/lib/dbus/machine-id")
_OF_THIS_START = "/run/machine-id"  # systemd's, where /etc cannot be written: another each time
_OF_CONTAINERS = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
_VARIABLES = ("KUBERNETES_SERVICE_HOST", "container")  # of Kubernetes; of LXC, nspawn and Podman


class Machine(NamedTuple):
    """The machine that a process runs on."""

    mark: str  # tells it from others; "": it has no id that lasts
    is_container: bool = False


def this_machine(root: Path = Path("/")) -> Machine:
    """Return what is known of this machine."""
    places = (root / one.lstrip("/") for one in _OF_CONTAINERS)
    is_told = any(os.environ.get(name) for name in _VARIABLES)
    is_container = is_told or any(one.exists() for one in places)
    return Machine(_mark(root), is_container)


def _mark(root: Path) -> str:
    for name in _IDS:
        path = root / name.lstrip("/")
        found = _id_in(path)
        if found is not None:
            is_passing = os.path.ismount(path) and found == _id_in(
                root / _OF_THIS_START.lstrip("/")
            )
            return "" if is_passing else _derived(found)
    return ""


def _id_in(path: Path) -> UUID | None:
    try:
        text = path.read_text("ascii").strip()
        found = UUID(text)
    except (OSError, ValueError):  # also "uninitialized"
        return None
    return found if found.int and len(text) == 32 else None


def _derived(machine_id: UUID) -> str:
    """Return the id that sd_id128_get_machine_app_specific(3) makes."""
    digest = hmac.new(machine_id.bytes, PROGRAM.bytes, hashlib.sha256).digest()
    return UUID(bytes=digest[:16], version=4).hex
