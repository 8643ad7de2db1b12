"""The home of a SQLite queue: the machine that it was made on, or that an operator named, and its
file there.

A copy of a production host has its queue and its settings, and would send its mail once more, and
so would a copy of the file beside it: in mode production nothing is sent anywhere but at home. The
file is known by its inode, which stays where it is renamed, and at a restart. The id of
machine-id(5) is confidential: what is kept is the id that systemd derives from it for one program,
the same as `systemd-id128 machine-id --app-specific=` with `PROGRAM` prints.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from relaygw.settings.model import Settings
from relaygw.settings.section import Mode
from relaygw.store.audit import AuditEntry, add_audit
from relaygw.store.database import Repository, Statement, insert_into

PROGRAM = UUID("6f2c1c5e-0d0b-4f0c-9d57-3b8e6a41c7d2")
# the second is D-Bus's, on machines without systemd
_IDS = ("/etc/machine-id", "/var/lib/dbus/machine-id")
_OF_THIS_START = "/run/machine-id"  # systemd's, where /etc cannot be written: another each time
_OF_CONTAINERS = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
_VARIABLES = ("KUBERNETES_SERVICE_HOST", "container")  # of Kubernetes; of LXC, nspawn and Podman
_ONLY = "home"
_FIND = Statement("SELECT mark, hostname, since_ms FROM home")
_PUT = "name mark hostname since_ms"
_RENEWED = """(name) DO UPDATE SET mark = excluded.mark, hostname = excluded.hostname,
    since_ms = excluded.since_ms"""
_UNKNOWN_BEFORE = "WHERE home.mark = '' OR excluded.mark LIKE home.mark || '/%'"
_LEARN = insert_into("home", _PUT, on_conflict=f"{_RENEWED} {_UNKNOWN_BEFORE}")
_ADOPT = insert_into("home", _PUT, on_conflict=_RENEWED)


class Machine(NamedTuple):
    """The machine that a process runs on."""

    mark: str  # tells it from others; "": it has no id that lasts
    is_container: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """The machine that a queue belongs to, and its file there."""

    mark: str  # see mark_at; "" of a machine without an id
    hostname: str  # as it was called then
    since_ms: int

    @property
    def owner(self) -> str:
        """Whose the queue is, seen from elsewhere."""
        is_near = is_of(self, this_machine())
        return "another file of this machine" if is_near else f"another machine ({self.hostname})"

    @property
    def words(self) -> str:
        """Its name, and the beginning of its id: a copy of a machine has the same name."""
        return f"{self.hostname} (id {self.mark[:8] or 'unknown'})"


class Homes(Repository):
    """The one home of a queue."""

    def home(self) -> Home | None:
        """Return the home, None of a queue that never had one: shared, or in a container."""
        with self._read() as tx:
            return next((tx.entry(Home, row, "since_ms") for row in _FIND.fetch_named(tx)), None)

    def learn(self, new: Home) -> None:
        """Write the home of a queue that has none, or one without an id, or without its file."""
        if new.mark:
            with self._write() as tx:
                row = (_ONLY, new.mark, new.hostname, tx.to_stored(new.since_ms))
                _LEARN.run(tx, [row])

    def adopt(self, new: Home, *, entry: AuditEntry) -> None:
        """Write another home, audited by `entry`."""
        with self._write() as tx:
            row = (_ONLY, new.mark, new.hostname, tx.to_stored(new.since_ms))
            _ADOPT.run(tx, [row])
            add_audit(tx, entry, 1)


def is_bound(settings: Settings, machine: Machine | None = None) -> bool:
    """True where a queue has a home: one of SQLite, on a host of its own."""
    return not (settings.queue.is_postgres or (machine or this_machine()).is_container)


def home_elsewhere(homes: Homes, settings: Settings, machine: Machine | None = None) -> Home | None:
    """Return the home of a queue that holds its mail here; None where nothing holds it.

    Only mode production is held: the others let nothing out, or what their lists allow.
    """
    machine = machine or this_machine()
    if settings.mode is not Mode.PRODUCTION or not is_bound(settings, machine):
        return None
    found = homes.home()
    return None if found is None or is_at(found, settings, machine) else found


def mark_at(settings: Settings, machine: Machine) -> str:
    """Return an id of a queue's file on this machine; "": the machine has no id."""
    file = Path(settings.queue.url.removeprefix("sqlite:///"))
    return machine.mark and f"{machine.mark}/{file.stat().st_ino}"


def is_of(home: Home, machine: Machine) -> bool:
    """True for a home on a machine."""
    return bool(machine.mark) and home.mark.partition("/")[0] == machine.mark


def is_at(home: Home, settings: Settings, machine: Machine) -> bool:
    """True where a queue is at home; one that was noted without its file, wherever that is."""
    if home.mark in ("", machine.mark):
        return True
    try:
        return home.mark == mark_at(settings, machine)
    except OSError:  # the file is away, which is told elsewhere
        return is_of(home, machine)


# --- which machine this is ----------------------------------------------------------------


def this_machine(root: Path = Path("/")) -> Machine:
    """Return the facts about this machine."""
    places = (root / path.lstrip("/") for path in _OF_CONTAINERS)
    is_told = any(os.environ.get(name) for name in _VARIABLES)
    is_container = is_told or any(place.exists() for place in places)
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
