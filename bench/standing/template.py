"""Databases to start from: made by the gateway, filled once, copied for each run."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

from bench.rig.filling import Mail, fill
from bench.rig.gateway import Gateway
from bench.standing.setting import Setting


def make_template(setting: Setting, gateway: Gateway, *mails: Mail) -> Path:
    """Let `gateway` create its database, fill it, and return the file; it ends stopped."""
    with gateway:
        gateway.stop()
    if mails:
        count = sum(mail.count for mail in mails)
        setting.say(f"filling a database with {count:,} messages")
        seconds = fill(gateway.database, *mails)
        setting.say(f"filled in {seconds:.0f} s, {gateway.database.stat().st_size / 1e6:.0f} MB")
    return gateway.database


def install(template: Path, gateway: Gateway) -> None:
    """Copy `template` to where `gateway` expects its database; it is in memory and synced.

    Copying brings every page into the page cache, whatever the size, so that runs begin alike.
    """
    gateway.database.parent.mkdir(parents=True, mode=0o700)
    shutil.copyfile(template, gateway.database)
    gateway.database.chmod(0o600)
    with contextlib.closing(sqlite3.connect(gateway.database, isolation_level=None)) as copy:
        copy.execute("DELETE FROM home")  # a copy of a queue that has one would be held
    with gateway.database.open("rb") as copy:
        os.fsync(copy.fileno())
