"""Ways of logging in that end, with the mail that goes by them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from relaygw.mail.clock import DAY_MS, clock_ms
from relaygw.observe.history import Series
from relaygw.policy.endings import EndingLogin, ending_logins

if TYPE_CHECKING:
    from relaygw.settings.model import Settings
    from relaygw.store.store import Store


def endings_of(store: Store, settings: Settings) -> list[EndingLogin]:
    """Return the ways of logging in that end, with what was delivered by them within a day."""
    endings = list(ending_logins(settings))
    if not endings:
        return endings
    since_ms = clock_ms() - DAY_MS
    counts = store.watch.sums(since_ms, step_ms=2**50, series=[Series.DELIVERED])
    delivered = {provider: number for _, _, provider, number in counts}
    return [replace(ending, delivered=delivered.get(ending.provider, 0)) for ending in endings]
