"""What the supervisor hands to the process of a role."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from relaygw import __version__
from relaygw.observe.maillog import MailLog
from relaygw.settings.load import LoadedSettings
from relaygw.settings.model import fingerprint
from relaygw.store import lifelines
from relaygw.store.instances import Instance


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleContext:
    """What the supervisor hands to a role's process."""

    loaded: LoadedSettings
    sockets: Sequence[socket.socket] = ()
    lifeline: int  # read end of a pipe that closes when the supervisor dies
    log: MailLog
    metrics: Path | None = None  # where processes count; None: they do not
    incarnation: str = field(default_factory=lambda: secrets.token_hex(6))

    @property
    def instances_dir(self) -> Path:
        """Where the lock files of this host's incarnations lie."""
        return lifelines.lifeline_directory(self.loaded.state_dir)

    def instance(self, role: str) -> Instance:
        """Return the registration of this process."""
        return Instance(
            incarnation=self.incarnation,
            name=self.loaded.settings.hostname,
            role=role,
            pid=os.getpid(),
            version=__version__,
            fingerprint=fingerprint(self.loaded.settings),
        )
