"""The audit trail is kept for more than a year, and no longer."""

from __future__ import annotations

import pytest

from relaygw.mail.clock import DAY_MS
from relaygw.store.audit import AUDIT_DAYS, AuditEntry
from relaygw.store.store import Store
from tests.builders import NOW_MS
from tests.contract.conftest import clock_at


@pytest.mark.parametrize(
    ("action", "age_days", "is_kept"),
    [
        ("queue.retry", AUDIT_DAYS - 1, True),
        ("queue.retry", AUDIT_DAYS + 1, False),
        ("settings.change", 3 * AUDIT_DAYS, True),
    ],
)
def test_a_line_is_deleted_when_it_is_too_old(
    store: Store, action: str, age_days: int, is_kept: bool
) -> None:
    at_ms = NOW_MS - age_days * DAY_MS
    entry = AuditEntry(at_ms=at_ms, actor="a", action=action, target="", affected=1, detail="")
    store.audit.add(entry)
    with clock_at(store, NOW_MS):
        store.janitor.purge({"finished": DAY_MS}, limit=50)
        assert len(store.audit.entries(limit=9)) == 1, "it is looked for now and then only"
        store.janitor.purge({"orphans": DAY_MS}, limit=50)
    assert len(store.audit.entries(limit=9)) == int(is_kept)
