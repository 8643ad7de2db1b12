"""What changes of the configuration leave in the audit trail.

Values are not recorded, only which sections differ from what the last start or reload of this
host had. Each entry keeps a short hash of every section, so that the next one can compare.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from relaygw.settings.model import Settings
from relaygw.store.audit import AuditEntry, Trail
from relaygw.store.store import Store

SETTINGS_CHANGE = "settings.change"
_NOTHING_BEFORE = AuditEntry(
    at_ms=0, actor="", action=SETTINGS_CHANGE, target="", affected=0, detail=""
)
_HASH_DIGITS = 12


def note_settings(store: Store, settings: Settings, *, occasion: str, now_ms: int) -> bool:
    """Record the settings that are in force from now on, if they are others than before.

    `occasion` is what brought them: start or reload. Several processes may come at once: one
    of them writes the entry. Returns whether it was this one. Raises StoreUnavailable.
    """
    host = settings.hostname
    trail = Trail(action=SETTINGS_CHANGE, target=host)
    last = next(iter(store.audit.entries(limit=1, trail=trail)), None)
    before = {} if last is None else _parsed(last.detail)
    # secrets are in it as references only
    sections = {name: _hash(one) for name, one in settings.model_dump(mode="json").items()}
    known = before.get("sections", {})
    changed = sorted(name for name in {*sections, *known} if sections.get(name) != known.get(name))
    if not changed:
        return False
    detail = {
        "number": before.get("number", 0) + 1,
        "by": occasion,
        "before": before.get("after"),
        "after": _hash(sections),
        "changed": changed if known else [],
        "sections": sections,
    }
    entry = AuditEntry(
        at_ms=now_ms,
        actor=f"{occasion} on {host}",
        action=SETTINGS_CHANGE,
        target=host,
        affected=len(changed) if known else 0,
        detail=json.dumps(detail, separators=(",", ":")),
    )
    return store.audit.add(entry, only_after=last or _NOTHING_BEFORE)


def settings_change_words(detail: str) -> str:
    """Return what the detail of a SETTINGS_CHANGE says in words."""
    noted = _parsed(detail)
    after = noted.get("after", "?")
    if not noted.get("before"):
        return f"settings {after} seen first"
    return f"{' '.join(noted['changed'])} (settings {noted['before']} -> {after})"


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:_HASH_DIGITS]


def _parsed(detail: str) -> dict[str, Any]:
    try:
        noted = json.loads(detail)
    except ValueError:
        return {}
    return noted if isinstance(noted, dict) else {}
