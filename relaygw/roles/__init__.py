"""The roles front, delivery and web: the only room that wires concrete classes.

Here: the queue of a configuration, where it lies, its schema, opening it. A role is a process
with one event loop (`roles.process`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from relaygw.errors import SettingsError, StoreFull, StoreUnavailable
from relaygw.mail.address import mailbox
from relaygw.mail.clock import clock_ms
from relaygw.mail.verdict import Told
from relaygw.policy.retry import doubt_waits
from relaygw.settings.load import LoadedSettings
from relaygw.settings.model import Settings
from relaygw.store import hints, migrate
from relaygw.store.audit import AuditEntry
from relaygw.store.capacity import HINTED_FROM, share_out
from relaygw.store.database import MAX_CONNECTIONS, Place
from relaygw.store.home import Home, Machine, is_at, is_bound, is_of, mark_at, this_machine
from relaygw.store.rules import StoreRules, WebhookRule
from relaygw.store.store import Store
from relaygw.store.store import open_store as open_store_at

if TYPE_CHECKING:
    from relaygw.store.backup import Contents, Restored
    from relaygw.store.recovery import Recovered


def queue_place(loaded: LoadedSettings) -> Place:
    """Return where the queue of a configuration lies."""
    queue = loaded.settings.queue

    def password() -> str | None:
        try:
            return queue.password.read() if queue.password is not None else None
        except SettingsError as error:
            raise StoreUnavailable(f"queue.password: {error}") from error

    return Place(url=queue.url, password=password, allow_unsafe=queue.allow_unsafe)


def prepare_schema(loaded: LoadedSettings) -> bool:
    """Bring a SQLite queue up to date; make a shared one, or check it: see `relaygw db upgrade`.

    Return whether a shared database was empty and has become a queue.
    """
    if loaded.settings.queue.is_postgres:
        return migrate.set_up_if_empty(queue_place(loaded))
    upgrade_schema(loaded)
    _learn_home(loaded)
    return False


def _learn_home(loaded: LoadedSettings) -> None:
    """Note which machine a SQLite queue is on, where it is not known yet."""
    machine = this_machine()
    if is_bound(loaded.settings, machine):
        with contextlib.closing(open_store(loaded, is_checked=True)) as store:
            found = store.homes.home()
            if found is None or found.mark in ("", machine.mark):
                with contextlib.suppress(StoreFull):  # the next start may know it
                    store.homes.learn(_home_here(loaded.settings, machine))


def _home_here(settings: Settings, machine: Machine) -> Home:
    mark = mark_at(settings, machine)
    return Home(mark=mark, hostname=settings.hostname, since_ms=clock_ms())


def adopt_queue(store: Store, settings: Settings, *, actor: str) -> tuple[Home, Home] | None:
    """Make this machine the home of a SQLite queue; return the one before and this.

    None if it was this already.
    """
    machine, before = this_machine(), store.homes.home()
    if machine.is_container or before is None or is_at(before, settings, machine):
        return None
    new = _home_here(settings, machine)
    entry = AuditEntry(
        at_ms=new.since_ms,
        actor=actor,
        action="db.adopt",
        target=new.hostname,
        affected=1,
        detail=f"it belonged to {before.words}",
    )
    store.homes.adopt(new, entry=entry)
    return before, new


def stay_at_home(store: Store, settings: Settings, *, actor: str) -> None:
    """Let a queue that was put into another file keep its home, where that is this machine."""
    home = store.homes.home()
    if home is not None and is_of(home, this_machine()):
        adopt_queue(store, settings, actor=actor)


def share_of_connections(loaded: LoadedSettings) -> tuple[int, str | None]:
    """Return how many connections to PostgreSQL a role may open, and why these are too few.

    None where they are not; SQLite asks for none. Raises StoreUnavailable.
    """
    place, settings = queue_place(loaded), loaded.settings
    if not place.is_postgres:
        return 0, None
    processes = settings.processes.front + settings.processes.delivery + 1
    with contextlib.closing(open_store_at(place)) as store:
        gateways = {
            settings.hostname,
            *(instance.name for instance in store.instances.registered()),
        }
        return share_out(store.database, gateways=len(gateways), processes=processes)


def open_store(
    loaded: LoadedSettings,
    *,
    first_in_line: bool = False,
    is_checked: bool = False,
    connections: int = MAX_CONNECTIONS,
) -> Store:
    """Open the queue of a configuration; raises SchemaMismatch, StoreUnavailable.

    `connections`: the share of this process, see store.capacity. `is_checked`: somebody has looked
    at its schema, so that it may be out of reach now. It waits for a command that has a SQLite
    queue to itself: nothing may be served yet, TERM must end it.
    """
    place = replace(
        queue_place(loaded), connections=max(1, connections - (connections >= HINTED_FROM))
    )
    if not is_checked:
        migrate.check_schema(place)
    rules = store_rules(loaded.settings)
    return open_store_at(place, rules=rules, first_in_line=first_in_line)


def store_rules(settings: Settings) -> StoreRules:
    """Return the rules of the store in a configuration."""
    spared = None if settings.archive_to is None else mailbox(settings.archive_to)
    return StoreRules(
        keep_content=settings.queue.keep_content > 0,
        suppression=replace(settings.suppression.rules(), spared=spared),
        tells_failures=settings.bounces.to != "none",
        tells_always=settings.bounces.address is not None,
        webhooks=tuple(
            WebhookRule(webhook.endpoint, frozenset(kind.value for kind in webhook.on or Told))
            for webhook in settings.webhooks
        ),
        doubt_waits=doubt_waits(settings.providers),
        siblings=_siblings(settings),
        production_hosts=settings.sandbox.production_hosts,
    )


def _siblings(settings: Settings) -> dict[str, frozenset[str]]:
    presets = {
        name: provider.preset for name, provider in settings.providers.items() if provider.preset
    }
    return {
        name: frozenset(other for other, its in presets.items() if its == preset)
        for name, preset in presets.items()
    }


def hears_of_mail(settings: Settings) -> bool:
    """Return whether providers, or mail of bounces, tell what becomes of mail."""
    are_told = any(provider.events is not None for provider in settings.providers.values())
    return are_told or settings.bounces.inbound is not None


def wake_workers(loaded: LoadedSettings) -> None:
    """Let this host's workers look at the queue now instead of within a second."""
    sender = hints.HintSender(hints.hint_directory(loaded.state_dir))
    sender.send()
    sender.close()


def upgrade_schema(loaded: LoadedSettings) -> tuple[str | None, str]:
    """Bring the schema up to date; return the revisions before and after."""
    return migrate.upgrade(queue_place(loaded))


def check_schema(loaded: LoadedSettings) -> None:
    """Raise SchemaMismatch unless the queue has the schema of this version, and all of it."""
    migrate.check_parts(queue_place(loaded))


def examine_queue(loaded: LoadedSettings) -> list[str]:
    """Return the problems of the file of a SQLite queue, a line for each; changes nothing."""
    from relaygw.store import recovery

    url = loaded.settings.queue.url
    return [] if loaded.settings.queue.is_postgres else recovery.examine(url)


def recover_queue(
    loaded: LoadedSettings, *, is_released: bool, tell: Callable[[int], None]
) -> Recovered:
    """Put what can be read of a damaged SQLite queue into a new one: see store.recovery."""
    from relaygw.store import recovery

    url = loaded.settings.queue.url
    return recovery.recover(url, is_released=is_released, now_ms=clock_ms(), tell=tell)


def back_up_queue(loaded: LoadedSettings, target: Path) -> Contents:
    """Write a copy of a SQLite queue that may be in use: see store.backup."""
    from relaygw.store import backup

    return backup.back_up(loaded.settings.queue.url, target)


def restore_queue(
    loaded: LoadedSettings,
    source: Path,
    *,
    is_released: bool,
    may_replace: Callable[[Contents | None], bool],
) -> Restored | None:
    """Put a queue made from a copy into the place of a SQLite queue: see store.backup."""
    from relaygw.store import backup

    url = loaded.settings.queue.url
    return backup.restore(
        url, source, is_released=is_released, now_ms=clock_ms(), may_replace=may_replace
    )


def note_settings(loaded: LoadedSettings, *, occasion: str) -> None:
    """Leave a line in the audit trail if the settings are others than before; note who is known."""
    from relaygw.operations.access import note_logins
    from relaygw.operations.audit import note_settings

    with contextlib.closing(open_store(loaded)) as store:
        now_ms, files = clock_ms(), loaded.files
        note_settings(store, loaded.settings, occasion=occasion, now_ms=now_ms, files=files)
        note_logins(store, loaded.settings, now_ms=clock_ms())
