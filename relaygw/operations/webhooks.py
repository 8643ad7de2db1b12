"""Receivers of webhooks as operators see them, and what they do: let go on, send again; audited."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from relaygw.mail.clock import rfc3339_or_none
from relaygw.mail.verdict import Told
from relaygw.mail.words import fields
from relaygw.policy.receivers import Endpoint, trouble_of
from relaygw.settings.model import Settings
from relaygw.settings.webhooks import Webhook, named_webhooks
from relaygw.store.audit import AuditEntry
from relaygw.store.outbox import Sent
from relaygw.store.store import Store

_UNSEEN = {"failures": 0, "next_at_ms": 0, "dropped": 0, "waiting": 0, "is_more_waiting": False}
_TIMES = ("oldest_at", "taken_at", "failing_since", "paused_at", "disabled_at", "next_at")


def receivers(store: Store, settings: Settings) -> dict[str, Endpoint]:
    """Return how the receivers of the settings do, by name; raises StoreUnavailable."""
    if not settings.webhooks:
        return {}
    known = {endpoint.endpoint: endpoint for endpoint in store.outbox.endpoints()}
    return {
        name: known.get(receiver.endpoint) or _unseen(receiver.endpoint)
        for name, receiver in named_webhooks(settings).items()
    }


def _unseen(endpoint: str) -> Endpoint:
    nothing: dict[str, Any] = dict.fromkeys(Endpoint.__slots__)
    return Endpoint(**nothing | _UNSEEN | {"endpoint": endpoint})


def receiver_warnings(found: Mapping[str, Endpoint], *, now_ms: int) -> Iterator[str]:
    """Yield what an operator should look at."""
    for name, endpoint in found.items():
        trouble = trouble_of(name, endpoint, now_ms=now_ms)
        if trouble is not None:
            yield f"{trouble.summary}; {trouble.remedy}"


def receiver_object(name: str, webhook: Webhook, endpoint: Endpoint) -> dict[str, Any]:
    """Return a receiver in the form of JSON."""
    times = {what: rfc3339_or_none(getattr(endpoint, f"{what}_ms") or None) for what in _TIMES}
    return {
        "name": name,
        "url": str(webhook.url),
        "on": [kind.value for kind in webhook.on or Told],
        **fields(endpoint, "state", "waiting", "is_more_waiting", "failures", "last_error"),
        **times,
        "dropped": endpoint.dropped,
        "dropped_at": rfc3339_or_none(endpoint.dropped_at_ms),
    }


def resume_receiver(store: Store, name: str, webhook: Webhook, *, actor: str, now_ms: int) -> bool:
    """Let a receiver be tried now; False when no sender has seen it yet."""
    entry = _entry("webhooks.resume", name, actor=actor, now_ms=now_ms)
    return store.outbox.resume(webhook.endpoint, entry=entry)


def sent_events(
    chosen: Collection[Webhook], *, since_ms: int | None, queue_ids: Sequence[str], now_ms: int
) -> Sent:
    """Return which events were sent to receivers until now, since a time or of messages."""
    return Sent(
        endpoints=[webhook.endpoint for webhook in chosen],
        before_ms=now_ms,
        since_ms=since_ms,
        queue_ids=queue_ids,
    )


def replay(
    store: Store, which: Sent, *, names: str, count: int, detail: str, actor: str, now_ms: int
) -> int:
    """Send events again, step by step, so that nobody waits for long; return how many."""
    entry = _entry("webhooks.replay", names, actor=actor, now_ms=now_ms, count=count, detail=detail)
    number = step = store.outbox.send_again(which, entry=entry)
    while step:
        step = store.outbox.send_again(which, entry=None)
        number += step
    return number


def note_test(store: Store, names: str, *, actor: str, now_ms: int) -> None:
    """Leave in the audit trail that somebody sent a test."""
    store.audit.add(_entry("webhooks.test", names, actor=actor, now_ms=now_ms))


def _entry(
    action: str, names: str, *, actor: str, now_ms: int, count: int = 0, detail: str = ""
) -> AuditEntry:
    return AuditEntry(
        at_ms=now_ms, actor=actor, action=action, target=names, affected=count, detail=detail
    )
