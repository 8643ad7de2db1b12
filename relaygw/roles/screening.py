"""What a front counts and looks at, as the settings say."""

from __future__ import annotations

from collections.abc import Iterator

from relaygw.inbound.screen import Check, Screen
from relaygw.inbound.sources import MailClasses
from relaygw.observe.maillog import MailLog
from relaygw.settings.guard import counts_sources
from relaygw.settings.model import Settings
from relaygw.store.store import Store


def mail_classes(settings: Settings) -> MailClasses | None:
    """Return what knows the classes of mail; None where nothing asks for them."""
    return MailClasses() if counts_sources(settings) else None


def screen(settings: Settings, store: Store, log: MailLog) -> Screen | None:
    """Return the checks that are on, in order; None without any."""
    checks = [*_checks(settings, store)]
    return Screen(checks, told=lambda line: log.note("cleanup", line)) if checks else None


def _checks(_settings: Settings, _store: Store) -> Iterator[Check]:
    yield from ()
