"""What a post says, and how it is signed: Standard Webhooks 1.0.0; docs/webhooks.md shows one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pydantic_core import to_json  # a quarter of what the standard library takes

from relaygw import __version__
from relaygw.mail.clock import rfc3339, utc_time
from relaygw.store.outbox import WebhookEvent

VERSION = 1
"""Of the body: it grows when a receiver that knows the old one could not read the new one."""
MAX_EVENTS = 200
MAX_BYTES = 65_536  # of the events, together; one is far smaller
_TYPE = "mail.events"


def fits(events: Sequence[WebhookEvent]) -> int:
    """Return how many of the events, from the first on, one post has room for."""
    size = 0
    for number, one in enumerate(events):
        size += len(_encoded(one)) + 1
        if size > MAX_BYTES:
            return number
    return len(events)


def body_of(events: Sequence[WebhookEvent], *, hostname: str, mode: str, at_ms: int) -> bytes:
    """Return the bytes of a post; `hostname` and `mode` are the gateway's."""
    head = {
        "type": _TYPE,
        "version": VERSION,
        "timestamp": rfc3339(at_ms),
        "gateway": hostname,
        "mode": mode,
        "data": {"events": []},
    }
    return to_json(head).removesuffix(b"]}}") + b",".join(map(_encoded, events)) + b"]}}"


@lru_cache(maxsize=MAX_EVENTS)
def _encoded(event: WebhookEvent) -> bytes:
    """Return an event as it is posted; of those of a post each is made once."""
    return to_json(event_object(event))


def event_object(event: WebhookEvent) -> dict[str, Any]:
    """Return one event as receivers get it."""
    return {
        "id": event.event_id,
        "kind": event.kind,
        "at": rfc3339(event.at_ms),
        "queue_id": event.queue_id,
        "recipient": event.address,
        "original_recipient": event.original,
        "sender": event.sender,
        "message_id": event.message_id,
        "order": event.link_value,
        "provider": event.provider,
        "verdict": event.verdict,
        "reply": event.reply,
        "dsn": event.dsn,
    }


def headers_of(body: bytes, *, post_id: str, keys: Sequence[str], at_ms: int) -> dict[str, str]:
    """Return the headers of an attempt at `at_ms`, with a signature by each of `keys`."""
    from standardwebhooks import Webhook

    at, text = utc_time(at_ms), body.decode()
    return {
        "content-type": "application/json",
        "user-agent": f"relaygw/{__version__}",
        "webhook-id": post_id,
        "webhook-timestamp": str(at_ms // 1000),
        "webhook-signature": " ".join(Webhook(key).sign(post_id, at, text) for key in keys),
    }


def trial_event(at_ms: int) -> WebhookEvent:
    """Return the event that `relaygw webhooks test` sends."""
    return WebhookEvent(
        event_id=f"ev_test_{at_ms}",
        event_no=0,
        queue_id="",
        rcpt_no=0,
        kind="test",
        at_ms=at_ms,
        verdict=None,
        provider=None,
        reply="somebody ran relaygw webhooks test",
        dsn=None,
        address=None,
        original=None,
        sender=None,
        message_id=None,
        link_value=None,
    )
