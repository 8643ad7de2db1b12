"""What all sessions of one listener share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relaygw.inbound.clients import ClientTable
from relaygw.inbound.group_commit import GroupCommitter
from relaygw.inbound.intake import Intake
from relaygw.observe.maillog import MailLog
from relaygw.observe.metrics.meters import SILENT, ListenerMeter
from relaygw.settings.listener import Listener

if TYPE_CHECKING:
    from relaygw.inbound.authentication import Authenticator
    from relaygw.inbound.certificate import Certificate
    from relaygw.inbound.connection import Connection
    from relaygw.inbound.rates import ClientRates


@dataclass(slots=True, kw_only=True)
class Front:
    """One listener at work."""

    listener: Listener
    name: str
    clients: ClientTable
    intake: Intake
    committer: GroupCommitter
    log: MailLog
    session_left: asyncio.Event  # set each time a session ends
    large_message_turn: asyncio.Semaphore  # to have a chunk of spooled content in memory
    authenticator: Authenticator | None = None  # None: nobody can log in here
    certificate: Certificate | None = None
    rates: ClientRates | None = None
    meter: ListenerMeter = SILENT
    sessions: set[Connection] = field(default_factory=set)
    is_stopping: bool = False

    @property
    def is_implicit(self) -> bool:
        """True when connections begin with TLS."""
        return self.listener.tls.mode == "implicit"
