"""What changes of the configuration leave in the audit trail.

Values are not recorded, only which keys differ from what the last start or reload of this host
had. Each entry keeps short hashes of all values, so that the next one can compare.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from relaygw import service_file
from relaygw.mail.clock import utc_text
from relaygw.policy.settings_change import (
    SETTINGS_CHANGE,
    SettingsChange,
    changed_keys,
    hash_of,
    keys_of,
    parse_change,
)
from relaygw.settings.model import Settings
from relaygw.store.audit import AuditEntry, Trail
from relaygw.store.store import Store

_NOTHING_BEFORE = AuditEntry(
    at_ms=0, actor="", action=SETTINGS_CHANGE, target="", affected=0, detail=""
)


def note_settings(
    store: Store, settings: Settings, *, occasion: str, now_ms: int, files: Sequence[Path] = ()
) -> bool:
    """Record the settings that are in force from now on, if they are others than before.

    `occasion` is what brought them: start or reload; `files` are where they stand. Several
    processes may come at once: one of them writes the entry. Returns whether it was this one.
    Raises StoreUnavailable.
    """
    host = settings.hostname
    trail = Trail(action=SETTINGS_CHANGE, target=host)
    last = next(iter(store.audit.entries(limit=1, trail=trail)), None)
    before = SettingsChange() if last is None else parse_change(last.detail)
    keys = keys_of(settings)
    # what a version before this one noted cannot be compared by keys
    changed = [] if before.keys is None else list(changed_keys(before.keys, keys))
    if before.keys is not None and not changed:
        return False
    detail = {
        "number": before.number + 1,
        "by": occasion,
        "before": before.after,
        "after": hash_of(keys),
        "changed": [name for name, _ in changed],
        "what": hash_of(changed),
        "who": list(_who(files, since_ms=last.at_ms if last else 0, is_start=occasion == "start")),
        "keys": keys,
    }
    entry = AuditEntry(
        at_ms=now_ms,
        actor=f"{occasion} on {host}",
        action=SETTINGS_CHANGE,
        target=host,
        affected=len(changed),
        detail=json.dumps(detail, separators=(",", ":")),
    )
    return store.audit.add(entry, only_after=last or _NOTHING_BEFORE)


def _who(files: Sequence[Path], *, since_ms: int, is_start: bool) -> Iterator[str]:
    """Yield who started the gateway, where that is known; whose files were written since, when."""
    if is_start and (caller := os.environ.get("SUDO_USER")):
        yield f"started by {caller} (sudo)"
    for file in files:
        with contextlib.suppress(OSError):
            found = file.stat()
            at_ms = int(found.st_mtime * 1000)
            if at_ms >= since_ms:
                owner = service_file.user_name(found.st_uid)
                yield f"{file}, a file of {owner}, was written at {utc_text(at_ms)}"


def settings_change_words(detail: str) -> str:
    """Return what the detail of a SETTINGS_CHANGE says in words."""
    noted = parse_change(detail)
    if not noted.changed:
        return f"settings {noted.after or '?'} seen first"
    return f"{', '.join(noted.changed)} (settings {noted.after})"
