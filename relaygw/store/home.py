"""The home of a SQLite queue: the machine that it was made on, or that an operator named.

A copy of a production host has its queue and its settings, and would send its mail once more: in
mode production nothing is sent anywhere but at home.
"""

from __future__ import annotations

from dataclasses import dataclass

from relaygw.machine import Machine, this_machine
from relaygw.settings.model import Settings
from relaygw.settings.section import Mode
from relaygw.store.audit import AuditEntry, add_audit
from relaygw.store.database import Repository, Statement, insert_into

_ONLY = "home"
_FIND = Statement("SELECT mark, hostname, since_ms FROM home")
_PUT = "name mark hostname since_ms"
_RENEWED = """(name) DO UPDATE SET mark = excluded.mark, hostname = excluded.hostname,
    since_ms = excluded.since_ms"""
_LEARN = insert_into("home", _PUT, on_conflict=f"{_RENEWED} WHERE home.mark = ''")
_ADOPT = insert_into("home", _PUT, on_conflict=_RENEWED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """The machine that a queue belongs to."""

    mark: str  # see machine; "" of one without an id
    hostname: str  # as it was called then
    since_ms: int

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
        """Write the home of a queue that has none, or one without an id."""
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


def is_bound(settings: Settings, machine: Machine) -> bool:
    """True where a queue has a home: one of SQLite, on a host of its own."""
    return not (settings.queue.is_postgres or machine.is_container)


def home_elsewhere(homes: Homes, settings: Settings, machine: Machine | None = None) -> Home | None:
    """Return the home of a queue that holds its mail here; None where nothing holds it.

    Only mode production is held: the others let nothing out, or what their lists allow.
    """
    machine = machine or this_machine()
    if settings.mode is not Mode.PRODUCTION or not is_bound(settings, machine):
        return None
    found = homes.home()
    return found if found is not None and found.mark not in ("", machine.mark) else None
