"""The roles front, delivery and web: the only room that wires concrete classes.

A role is one process with one event loop. It ends when its supervisor says so (TERM), or
when the supervisor dies (its pipe closes); a front may also be retired (USR2): it takes no
new connections and ends with its last session. What is named here is cheap to import.
"""

from relaygw.roles.opening import (
    check_schema,
    examine_queue,
    note_settings,
    open_store,
    prepare_schema,
    queue_place,
    recover_queue,
    upgrade_schema,
    wake_workers,
)

__all__ = [
    "check_schema",
    "examine_queue",
    "note_settings",
    "open_store",
    "prepare_schema",
    "queue_place",
    "recover_queue",
    "upgrade_schema",
    "wake_workers",
]
