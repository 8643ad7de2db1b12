"""The guard's check: mail of classes and sources that are held, by the guard or an operator."""

from __future__ import annotations

import time
from collections import defaultdict

from relaygw.inbound.content import ReceivedContent
from relaygw.inbound.screen import Check, ScreenHold
from relaygw.mail.content import HeaderFacts
from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.hold import HoldCode
from relaygw.store.guard import GuardEntry, HeldMailScope
from relaygw.store.store import Store

_EACH_S = 60.0


class GuardCheck(Check):
    """Holds what the queue says is held."""

    name = "guard"

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: dict[str, list[HeldMailScope]] = {}  # by source
        self._entries: list[GuardEntry] = []
        self._due_s = 0.0

    def look(
        self, message: AcceptedMessage, _facts: HeaderFacts, _content: ReceivedContent
    ) -> ScreenHold | None:
        """Return the hold of a message's class."""
        one = message.mail_class
        if not self._held or one is None:
            return None
        for scope in self._held.get(one.source_id, ()):
            if scope.covers(one):
                return ScreenHold(HoldCode.GUARD, scope.target, scope.reason)
        return None

    def refresh(self) -> None:
        """Read what is held; what it covers is read again each minute only."""
        entries = self._store.guard.guard_entries()
        if entries == self._entries and time.monotonic() < self._due_s:
            return
        held: dict[str, list[HeldMailScope]] = defaultdict(list)
        for scope in self._store.guard.held_scopes():
            held[scope.source_id].append(scope)
        self._held, self._entries = dict(held), entries
        self._due_s = time.monotonic() + _EACH_S
