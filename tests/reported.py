"""What providers report of mail, written as the reader of their posts writes it."""

from __future__ import annotations

import itertools
from typing import Any

from relaygw.mail.verdict import Event, Kind
from relaygw.store.feedback import MatchedEvent
from relaygw.store.store import Store

_keys = itertools.count()


def told(
    queue_id: str | None,
    kind: Kind,
    *,
    rcpt_no: int | None = 0,
    provider: str = "main",
    at_ms: int,
    **more: Any,
) -> MatchedEvent:
    """Return an event with the mail that it is about."""
    event = Event(**{"key": f"key {next(_keys)}", "kind": kind, "at_ms": at_ms, **more})
    return MatchedEvent(provider=provider, event=event, queue_id=queue_id, rcpt_no=rcpt_no)


def report(store: Store, queue_id: str | None, kind: Kind, **more: Any) -> None:
    """Let a provider report of a recipient of a message, the first one unless told otherwise."""
    store.feedback.take([told(queue_id, kind, **more)])
